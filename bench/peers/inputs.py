"""What a peer's script shares with `dsengine bench`: its token ids, its options, its one line of JSON."""
import argparse
import json
import os
import resource
import statistics


class Draws:
    """s = 6364136223846793005 s + 1442695040888963407 mod 2^64, (s >> 33) % n: core/app/bench_inputs.h."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n


def token_rows(lengths, vocabulary):
    low, high, draws = (1000 if vocabulary > 1000 else 0), min(30000, vocabulary), Draws(1234)
    return [[low + draws.below(high - low) for _ in range(length)] for length in lengths]


def ragged_lengths(count, most):
    draws, quarter = Draws(4321), max(1, most // 4)
    return [quarter + draws.below(most - quarter + 1) for _ in range(count)]


def options(description, **defaults):
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--model", required=True)
    for name, default in {**defaults, "threads": 2, "repeats": 3}.items():
        arguments.add_argument("--" + name, type=type(default), default=default)
    parsed = arguments.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before anything reads them
        os.environ[name] = str(parsed.threads)
    return parsed


def emit(**fields):
    fields["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    print(json.dumps(fields), flush=True)


def median(values):
    return round(statistics.median(values), 5)


def prompt_loss(model, prompts):
    """The mean of -log p of all tokens but the first: what shows that both sides hold one model and one input."""
    import torch
    ids = torch.tensor(prompts)
    with torch.no_grad():
        return round(model(input_ids=ids, labels=ids, use_cache=False).loss.item(), 6)


class Enough(Exception):
    """Ends a trainer's loop from one of its callbacks."""


def step_seconds(trainer, repeats):
    """The median step of one of transformers' trainers, of `repeats` behind the first."""
    import time
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        seconds, begun, warm = [], None, False

        def on_train_begin(self, *_, **__):
            self.begun = time.perf_counter()

        def on_step_end(self, *_, **__):
            now = time.perf_counter()
            if self.warm:
                self.seconds.append(now - self.begun)
            self.warm, self.begun = True, now
            if len(self.seconds) == repeats:
                raise Enough

    clock = Clock()
    trainer.add_callback(clock)
    try:
        trainer.train()
    except Enough:
        pass
    return median(clock.seconds)


def word_tokenizer(vocabulary):
    """Of trainers that take texts: the word t7 is the token 7."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(vocabulary)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="t1", eos_token="t2", padding_side="left")
