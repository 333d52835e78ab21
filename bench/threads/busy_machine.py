#!/usr/bin/env python3
"""`dsengine generate` and a step of PPO, alone and beside loops that keep every core busy.

  bench/threads/busy_machine.py [--binary FILE] [--before FILE] [--model DIR] [--rounds N] [--loops N] [--tokens N]
  # needs: cmake --build --preset release; numpy, of the environment of scripts/setup

Each round, in turn: alone, and beside the loops; with --before the same with that program first. "fair" is what a fair
scheduler leaves of the machine: (cores + loops) / cores. "beside_per_alone" is the median of the rounds' ratios. Of
generate it is the program's whole time; of PPO a step's, as `dsengine bench ppo` tells it. Without --model a LLaMA of 110M
random weights is written to a temporary folder. Results: bench/results/busy_machine.jsonl.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
from random_llama import LLAMA_110M, write_model


def generate_seconds(binary, model, tokens, folder):
    prompt = folder / "prompt.jsonl"
    prompt.write_text(json.dumps({"input_ids": list(range(100, 132))}))
    command = [binary, "generate", "--model", model, "--input", prompt, "--output", folder / "out.jsonl",
               "--max-new-tokens", str(tokens), "--temperature", "0", "--ignore-eos"]
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def ppo_seconds(binary, model, tokens, _):
    command = [binary, "bench", "ppo", "--model", model, "--batch", "4", "--prompt", "32", "--new", str(tokens),
               "--repeats", "1"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(told)["step_s"]


WORK = {"generate": generate_seconds, "ppo": ppo_seconds}


def seconds(work, binary, model, tokens, folder, loops):
    neighbours = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(loops)]
    try:
        return WORK[work](binary, model, tokens, folder)
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


def measure(work, options, model, folder):
    programs = {"before": options.before} if options.before else {}
    programs["now"] = options.binary
    times = {name: {"alone": [], "beside": []} for name in programs}
    for _ in range(options.rounds):
        for loops in (0, options.loops):
            for name, binary in programs.items():
                times[name]["beside" if loops else "alone"].append(
                    seconds(work, binary, model, options.tokens, folder, loops))
    cores = len(os.sched_getaffinity(0))
    result = {"work": work, "cores": cores, "loops": options.loops, "tokens": options.tokens, "rounds": options.rounds,
              "fair": round((cores + options.loops) / cores, 2)}
    for name, t in times.items():
        result[name] = {f"{state}_seconds": round(statistics.median(t[state]), 2) for state in t}
        result[name]["beside_per_alone"] = round(statistics.median(b / a for a, b in zip(t["alone"], t["beside"])), 2)
    if options.before:
        result["alone_now_per_before"] = round(
            statistics.median(n / b for n, b in zip(times["now"]["alone"], times["before"]["alone"])), 3)
    return result


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", type=Path, default=ROOT / "build/release/bin/dsengine")
    arguments.add_argument("--before", type=Path, help="another build's program, to compare with")
    arguments.add_argument("--model", type=Path)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--loops", type=int, default=6)
    arguments.add_argument("--tokens", type=int, default=33)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if not options.model:
            write_model(folder, LLAMA_110M)
        results = [json.dumps(measure(work, options, options.model or folder, folder)) for work in WORK]
    print("\n".join(results))
    given = "".join(f" --{name} {getattr(options, name)}" for name in ("rounds", "loops", "tokens"))
    given += " --before BUILD_BEFORE" if options.before else ""
    with open(ROOT / "bench/results/busy_machine.jsonl", "w") as file:
        file.write("\n".join([f"# bench/threads/busy_machine.py{given}", *results, ""]))


main()
