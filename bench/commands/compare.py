#!/usr/bin/env python3
"""Every command of two builds, in turn: how long one takes of the other's time.

  bench/commands/compare.py --before FILE [--binary FILE] [--rounds N] [--only NAME]…
  # needs: cmake --build --preset release; numpy, of the environment of scripts/setup

Each round runs each command with the one program, then with the other; "ratio" is the median of the rounds' ratios, "now"
of "before". Large: a LLaMA of 110M random weights; small: the built-in default's models, made by a short run of each
program's own. Threads: all cores. Results: bench/results/commands.jsonl.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "examples/tiny"
sys.path.insert(0, str(ROOT / "bench"))
from random_llama import LLAMA_110M, write_model

SHORT = ["--set", "max_steps=10", "--set", "eval_rows=32"]


def lines(path, objects):
    path.write_text("".join(json.dumps(o) + "\n" for o in objects))
    return path


def prepare(folder, programs):
    write_model_to = folder / "large"
    write_model_to.mkdir()
    write_model(write_model_to, LLAMA_110M)
    ids = [[(7 * i + 13 * row) % 30000 + 3 for i in range(256)] for row in range(4)]
    lines(folder / "long.jsonl", [{"input_ids": row} for row in ids])
    lines(folder / "prompts.jsonl", [{"input_ids": row[:32]} for row in ids])
    records = [json.loads(line) for line in (TINY / "data/sft.jsonl").read_text().splitlines()]
    texts = [json.dumps(record) for record in records]
    lines(folder / "texts.jsonl", [{"text": texts[i % len(texts)]} for i in range(4000)])
    lines(folder / "questions.jsonl", [{"messages": [{"role": "user", "content": f"How much is {i} and {i + 1}?"}]} for i in range(128)])
    wide = folder / "wide"
    shutil.copytree(TINY / "model", wide)
    config = json.loads((wide / "config.json").read_text())
    config.update(hidden_size=512, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=8,
                  num_key_value_heads=8, head_dim=64)
    (wide / "config.json").write_text(json.dumps(config))
    (folder / "wide.toml").write_text(f"""
[model]
actor = "{wide}"
init = "random"
[[stage]]
name = "sft"
algorithm = "sft"
max_steps = 4
mini_batch_size = 32
micro_batch_size = 8
data.sources = [{{ path = "{TINY}/data/sft.jsonl" }}]
""")
    for name, binary in programs.items():
        run(binary, ["--plugin", "ppo", *SHORT, "--set", f"output_dir={folder}/{name}"])


def run(binary, arguments, stdin=""):
    start = time.monotonic()
    done = subprocess.run([binary, *map(str, arguments)], input=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{binary} {arguments}: {done.stderr[-1000:]}")
    return time.monotonic() - start


def commands(folder, made):
    """name -> (arguments, what is typed); `made`: the models of the program's own short run."""
    out, sft, ppo, reward = folder / "out", made / "sft/model", made / "ppo/model", made / "reward/model"
    to = ["--output", out / "lines.jsonl"]
    short = [*SHORT, "--set", f"output_dir={out}/run"]
    return {
        "start": (["--version"], ""),
        "plugins": (["plugins", "list"], ""),
        "tokenize": (["tokenize", "--model", sft, "--input", folder / "texts.jsonl", *to], ""),
        "score large": (["score", "--model", folder / "large", "--input", folder / "long.jsonl", *to], ""),
        "score reward": (["score", "--reward", reward, "--input", folder / "questions.jsonl", *to], ""),
        "generate large": (["generate", "--model", folder / "large", "--input", folder / "prompts.jsonl", *to,
                            "--max-new-tokens", 32, "--temperature", 0, "--ignore-eos"], ""),
        "generate small": (["generate", "--model", sft, "--input", folder / "questions.jsonl", *to, "--max-new-tokens", 48,
                            "--temperature", 1, "--top-p", 0.9, "--seed", 1, "--n", 4, "--ignore-eos"], ""),
        "chat": (["chat", "--model", ppo, "--max-new-tokens", 64, "--temperature", 0],
                 "How much is 3 and 2?\nWhat colour is a mouse?\nWhat is the capital of France?\n"),
        "eval": (["eval", "--model", ppo, "--other", sft, "--reward-model", reward, "--data", TINY / "data/sft.jsonl",
                  "--rows", 64, "--max-new-tokens", 32], ""),
        "export": (["export", "--model", ppo, "--output", out / "model"], ""),
        "report": (["report", made, "--output", out / "page.html"], ""),
        "run": (["--plugin", "ppo", *short], ""),
        "run lora": (["--plugin", "ppo", *short, "--set", "stage.ppo.actor.lora.rank=4"], ""),
        "run wide": (["run", "--config", folder / "wide.toml", "--set", f"output_dir={out}/run"], ""),
    }


def measure(options, folder):
    programs = {"before": options.before, "now": options.binary}
    prepare(folder, programs)
    table = {name: commands(folder, folder / name) for name in programs}
    for case in options.only or table["now"]:
        times = {name: [] for name in programs}
        for _ in range(options.rounds + 1):  # the first warms up
            for name, binary in programs.items():
                shutil.rmtree(folder / "out", ignore_errors=True)
                (folder / "out").mkdir()
                times[name].append(run(binary, *table[name][case]))
        before, now = times["before"][1:], times["now"][1:]
        yield {"command": case, "before_seconds": round(statistics.median(before), 3),
               "now_seconds": round(statistics.median(now), 3),
               "ratio": round(statistics.median(n / b for n, b in zip(now, before)), 3),
               "ratios": [round(n / b, 2) for n, b in zip(now, before)]}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--before", type=Path, required=True, help="another build's program")
    arguments.add_argument("--binary", type=Path, default=ROOT / "build/release/bin/dsengine")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--only", action="append", help="a command's name")
    options = arguments.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for result in measure(options, Path(folder)):
            print(json.dumps(result), flush=True)
            results.append(json.dumps(result) + "\n")
    with open(ROOT / "bench/results/commands.jsonl", "w") as file:
        file.write(f"# bench/commands/compare.py --before BUILD_BEFORE --rounds {options.rounds}, "
                   f"{len(os.sched_getaffinity(0))} cores\n")
        file.writelines(results)


main()
