"""dsengine bench: its lines, its inputs and its errors: bench_test.py BINARY

The inputs are made here again by the rule that docs/files.md states; the greedy answer is what `dsengine generate` gives to
them, the first loss what transformers says of them. Times are asserted to be there and to add up, not to be short. Runs in
the environment of scripts/setup.
"""
import json
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers

BINARY = str(pathlib.Path(sys.argv[1]).resolve())
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bench"))
from random_llama import write_model  # noqa: E402

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 1500, "hidden_size": 32,
          "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
          "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10000.0,
          "tie_word_embeddings": False, "eos_token_id": 1001}
PHASES = ["generate", "score", "actor", "critic", "other"]


def draws(seed):
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield state >> 33


def rows_of(lengths):
    numbers = draws(1234)
    return [[1000 + next(numbers) % (CONFIG["vocab_size"] - 1000) for _ in range(length)] for length in lengths]


def bench(*arguments):
    done = subprocess.run([BINARY, "bench", *map(str, arguments)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (arguments, done.stderr[-2000:])
    (line,) = done.stdout.splitlines()
    line = json.loads(line)
    assert line["command"] == f"bench {arguments[0]}" and line["dtype"] == "fp32" and line["threads"] >= 1, line
    assert line["peak_memory_mb"] > 10 and line["read_gb_per_s"] > 0.1 and line["product_gflops"] > 0.1, line
    return line


def check_common(line, key, repeats):
    assert len(line["other_cores"]) == repeats and 0 < line["floor_share"] < 2, line
    for spread in line["spread"].values():
        assert spread["n"] == repeats and spread["min"] <= spread["median"] <= spread["max"], line
    assert line[key] == line["spread"][key]["median"] > 0, line


def generate(model):
    line = bench("generate", "--model", model, "--batch", 3, "--prompt", 9, "--new", 7, "--repeats", 2, "--threads", 1)
    check_common(line, "tokens_per_s", 2)
    assert line["model"] == "llama" and line["batch"] == 3 and line["threads"] == 1, line
    assert line["new_tokens"] == 21 and line["decode_steps"] == 6, line
    assert math.isclose(line["decode_tokens_per_s"], 18 / line["decode_s"], rel_tol=0.2), line  # medians of two each
    lines = "".join(json.dumps({"input_ids": row}) + "\n" for row in rows_of([9] * 3))
    answered = subprocess.run([BINARY, "generate", "--model", model, "--max-new-tokens", "7", "--temperature", "0", "--ignore-eos"],
                              input=lines, capture_output=True, text=True, check=True)
    assert line["output_ids"] == json.loads(answered.stdout.splitlines()[0])["output_ids"], line

    line = bench("generate", "--model", model, "--batch", 5, "--prompt", 9, "--new", 20, "--samples", 2, "--slots", 3,
                 "--lengths", "exponential", "--temperature", 1, "--repeats", 1)
    numbers = draws(4321)
    lengths = [min(20, max(1, int(-math.log1p(-next(numbers) / 2**31) * 5 + 0.5))) for _ in range(5)]
    assert len(set(lengths)) > 1 and line["new_tokens"] == 2 * sum(lengths), (line, lengths)
    assert len(line["output_ids"]) == lengths[0] and line["slots"] == 3, line

    # A wave of two takes the steps of its longer answer; the tokens are those asked for.
    waves = bench("generate", "--model", model, "--batch", 5, "--prompt", 9, "--new", 20, "--slots", 2, "--padded-waves",
                  "--lengths", "exponential", "--repeats", 1)
    assert waves["new_tokens"] == sum(lengths) and waves["padded_waves"], waves
    assert waves["decode_steps"] == sum(max(lengths[i:i + 2]) - 1 for i in (0, 2, 4)), (waves, lengths)
    greedy = bench("generate", "--model", model, "--batch", 5, "--prompt", 9, "--new", 20, "--lengths", "exponential",
                   "--repeats", 1)
    assert waves["output_ids"] == greedy["output_ids"], (waves, greedy)


def transformers_loss(model, lengths):
    reader = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    total = 0.0
    with torch.no_grad():
        for row in rows_of(lengths):
            ids = torch.tensor([row])
            total += reader(input_ids=ids, labels=ids).loss.item() * (len(row) - 1)
    return total / sum(length - 1 for length in lengths)


def train(model):
    line = bench("train", "--model", model, "--batch", 3, "--length", 16, "--repeats", 2)
    check_common(line, "step_s", 2)
    assert line["tokens"] == 48 and math.isclose(line["tokens_per_s"], 48 / line["step_s"], rel_tol=1e-4), line
    assert math.isclose(sum(line["phases_s"].values()), line["step_s"], rel_tol=0.5) and list(line["phases_s"]) == PHASES
    assert abs(line["loss_first"] - transformers_loss(model, [16] * 3)) < 1e-4, line
    assert line["loss_last"] < line["loss_first"] and line["memory_peak_mb"] > 0, line
    assert 0 < line["memory_mb"]["weights"] < line["memory_peak_mb"] <= sum(line["memory_mb"].values()) + 0.1, line

    line = bench("train", "--model", model, "--batch", 3, "--length", 16, "--lengths", "ragged", "--micro-batch", 1,
                 "--recompute", "--repeats", 1)
    numbers = draws(4321)
    lengths = [4 + next(numbers) % 13 for _ in range(3)]
    assert len(set(lengths)) > 1 and line["tokens"] == sum(lengths), (line, lengths)
    assert abs(line["loss_first"] - transformers_loss(model, lengths)) < 1e-4, line

    whole = bench("train", "--model", model, "--batch", 3, "--length", 16, "--repeats", 1)
    small = bench("train", "--model", model, "--batch", 3, "--length", 16, "--repeats", 1, "--set", "moments=8bit",
                  "--set", "actor.learning_rate=0.01")
    assert small["memory_mb"]["moments"] < whole["memory_mb"]["moments"] / 2 and small["loss_last"] < whole["loss_last"]


def rollouts(model):
    shape = ["--model", model, "--prompt", 6, "--new", 5, "--repeats", 2]
    ppo = bench("ppo", "--batch", 4, "--epochs", 2, "--temperature", 0.7, *shape)
    grpo = bench("grpo", "--batch", 6, "--group", 3, "--temperature", 0, *shape)
    for line in (ppo, grpo):
        check_common(line, "step_s", 2)
        assert list(line["phases_s"]) == PHASES and line["phases_s"]["generate"] > 0 and line["phases_s"]["score"] > 0, line
        assert line["memory_mb"]["kv_cache"] > 0 and len(line["output_ids"]) == 5, line
        assert line["samples_per_s"] > 0 and line["generate_s"] < line["step_s"] and line["gflop_per_step"] > 0, line
    # A critic that begins at zero has to learn from a reward model whose head does not.
    assert ppo["phases_s"]["critic"] > 0 and ppo["loss_first"] != 0 and ppo["epochs"] == 2 and ppo["group"] == 1, ppo
    assert grpo["group"] == 3 and grpo["kl_coef"] == 0, grpo
    for line, prompts in ((ppo, 4), (grpo, 2)):
        assert abs(line["prompt_loss"] - transformers_loss(model, [6] * prompts)) < 1e-4, line
    small = model.parent / "critic"
    small.mkdir(exist_ok=True)
    write_model(small, {**CONFIG, "num_hidden_layers": 1})
    other = bench("ppo", "--critic", small, "--batch", 4, "--epochs", 2, "--temperature", 0.7, *shape)
    assert other["gflop_per_step"] < ppo["gflop_per_step"] and other["output_ids"] == ppo["output_ids"], (other, ppo)
    assert bench("ppo", "--model", model, "--prompt", 1, "--new", 3, "--batch", 2, "--repeats", 1)["prompt_loss"] is None


def ops():
    shapes = bench("ops", "--rows", 3, "--in", 8, "--out", 16, "--rows", 1, "--in", 32, "--out", 4, "--repeats", 2)["shapes"]
    assert [(s["rows"], s["in"], s["out"]) for s in shapes] == [(3, 8, 16), (1, 32, 4)], shapes
    for s in shapes:
        for name in ("forward", "backward", "weight_backward"):
            one = s[name]
            assert math.isclose(one["gflops"], 2e-9 * s["rows"] * s["in"] * s["out"] / one["seconds"], rel_tol=1e-4), s
            assert math.isclose(one["gb_per_s"], 4e-9 * s["in"] * s["out"] / one["seconds"], rel_tol=1e-4), s


def errors(model):
    for arguments, part in (([], "subcommand is required"), (["sprint"], "subcommand is required"), (["generate"], "--model is required"),
                            (["generate", "--model", "/nowhere"], "--model /nowhere: there is no such directory"),
                            (["generate", "--model", model, "--batch", "0"], "--batch"),
                            (["generate", "--model", model, "--dtype", "fp8"], "--dtype"),
                            (["generate", "--model", model, "--lengths", "ragged"], "--lengths"),
                            (["generate", "--model", model, "--prompt", "60", "--new", "9"], "64 positions"),
                            (["train", "--model", model, "--length", "65"], "64 positions"),
                            (["train", "--model", model, "--length", "1"], "--length"),
                            (["ppo", "--model", model, "--prompt", "60", "--new", "9"], "64 positions"),
                            (["grpo", "--model", model, "--batch", "6"], "6 is no multiple of 4"),
                            (["grpo", "--model", model, "--group", "1"], "--group"),
                            (["train", "--model", model, "--set", "micro_batch_size=2"], "options of their own"),
                            (["train", "--model", model, "--set", "offload.gradients=true"], "offload.moments"),
                            (["train", "--model", model, "--set", "momments=8bit"], "moments"),
                            (["train", "--model", model, "--set", "seed=3"], "no key of a stage"),
                            (["ops", "--rows", "3", "--in", "8"], "make a shape together"),
                            (["ops", "--rows", "0"], "--rows")):
        done = subprocess.run([BINARY, "bench", *map(str, arguments)], capture_output=True, text=True, timeout=600)
        said = [line for line in done.stderr.splitlines() if line.startswith("dsengine: ")]
        assert done.returncode == 1 and done.stdout == "", (arguments, done)
        assert len(said) == 1 and said[0].startswith("dsengine: error: ") and part in said[0], (arguments, done.stderr)


def main():
    with tempfile.TemporaryDirectory() as scratch:
        model = pathlib.Path(scratch) / "llama"
        model.mkdir()
        write_model(model, CONFIG)
        generate(model)
        train(model)
        rollouts(model)
        ops()
        errors(model)
        # With a tokenizer, which a rollout's reward reads.
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ROOT / "examples/tiny/model" / name, model)
        rollouts(model)


main()
