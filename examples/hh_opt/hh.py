#!/usr/bin/env python3
"""Anthropic's hh-rlhf pairs for examples/hh_opt.toml, and what its losses are measured against.

    python3 hh.py split harmless-base-test.jsonl.gz runs/hh_data     # train.jsonl and heldout.jsonl, by first turn
    python3 hh.py unigram DSENGINE TOKENIZER_DIR runs/hh_data        # held-out loss of a unigram model, nats a token
    python3 hh.py results runs/hh_opt                                # the run's figures

Conversations with the same first turn stay together, so that no held-out dialogue begins as a training one does.
Python's standard library only.
"""
import collections
import gzip
import hashlib
import json
import math
import pathlib
import subprocess
import sys
import tempfile

HELDOUT_SHARE = 0.12
MAX_LENGTH, EOS = 480, 50256  # of hh_opt.toml and its model


def turns(text):
    parts = text.split("\n\n")
    result = []
    for part in parts:
        if part.startswith("Human:") or part.startswith("Assistant:"):
            role, _, content = part.partition(":")
            result.append([role, content.lstrip(" ")])
        elif result:
            result[-1][1] += "\n\n" + part
    return result


def split(source, folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    counts = collections.Counter()
    with gzip.open(source, "rt", encoding="utf-8") as lines, \
            open(folder / "train.jsonl", "w", encoding="utf-8") as train, \
            open(folder / "heldout.jsonl", "w", encoding="utf-8") as heldout:
        for line in lines:
            first = turns(json.loads(line)["chosen"])[0][1]
            draw = int(hashlib.sha256(first.encode()).hexdigest()[:8], 16) / 16**8
            name, file = ("heldout", heldout) if draw < HELDOUT_SHARE else ("train", train)
            file.write(line)
            counts[name] += 1
    print(dict(counts))


def tokens_of(dsengine, tokenizer, path):
    """The ids that supervised fine-tuning sees: the chosen dialogue in the engine's form, an end token after each answer."""
    with tempfile.TemporaryDirectory() as scratch:
        text, out = pathlib.Path(scratch, "text"), pathlib.Path(scratch, "ids")
        with open(path, encoding="utf-8") as lines, open(text, "w", encoding="utf-8") as to:
            for line in lines:
                rendered = "\n".join(f"{role}: {content}" + ("<|endoftext|>" if role == "Assistant" else "")
                                     for role, content in turns(json.loads(line)["chosen"]))
                to.write(json.dumps({"text": rendered}) + "\n")
        subprocess.run([dsengine, "tokenize", "--model", tokenizer, "--input", text, "--output", out], check=True)
        for line in out.read_text().splitlines():
            ids = json.loads(line)["input_ids"]
            ids += [EOS] * (ids[-1] != EOS)  # every dialogue ends with an answer
            if len(ids) <= MAX_LENGTH:
                yield ids[1:]


def unigram(dsengine, tokenizer, folder):
    counts = collections.Counter(t for ids in tokens_of(dsengine, tokenizer, f"{folder}/train.jsonl") for t in ids)
    total = sum(counts.values())
    loss = tokens = 0
    for ids in tokens_of(dsengine, tokenizer, f"{folder}/heldout.jsonl"):
        for t in ids:  # one count more for each of the 50,257 tokens
            loss -= math.log((counts[t] + 1) / (total + 50257))
            tokens += 1
    print(f"unigram model of {total} training tokens: {loss / tokens:.3f} nats a token on {tokens} held-out tokens")


def results(run):
    read = lambda stage, file: [json.loads(line) for line in pathlib.Path(run, stage, file).read_text().splitlines()]
    sft = read("sft", "eval.jsonl")
    print(f"sft: held-out loss {sft[0]['eval_loss']:.3f} -> {sft[-1]['eval_loss']:.3f} nats a token ({sft[-1]['eval_rows']} records)")
    reward = read("reward", "eval.jsonl")[-1]
    p, n, z = reward["eval_accuracy"], reward["eval_rows"], 1.96  # Wilson's interval
    middle, half = (p + z * z / (2 * n)) / (1 + z * z / n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    print(f"reward: held-out accuracy {p:.3f}, 95 % interval {middle - half:.3f} to {middle + half:.3f} ({n} pairs)")
    steps = {s["step"]: s for s in read("ppo", "metrics.jsonl")}
    for e in read("ppo", "eval.jsonl"):
        kl = steps.get(e["step"], {}).get("kl", 0.0)
        print(f"ppo: step {e['step']:3d} held-out reward {e['eval_reward']:.3f} +- {e['eval_reward_standard_error']:.3f}, KL {kl:.2f}, "
              f"length {e['eval_response_length']:.1f}, ended {e['eval_eos_fraction']:.2f}")


if __name__ == "__main__":
    commands = {"split": (split, 2), "unigram": (unigram, 3), "results": (results, 1)}
    if len(sys.argv) < 2 or sys.argv[1] not in commands or len(sys.argv) != commands[sys.argv[1]][1] + 2:
        sys.exit(__doc__)
    commands[sys.argv[1]][0](*sys.argv[2:])
