#!/usr/bin/env python3
"""Loading a model of 1 GB: how long beside a plain read of its file, and how much anonymous memory it takes at most.

  bench/loading/load_speed.py [--binary FILE] [--rounds N] [--folder DIR]
  # needs: cmake --build --preset release; numpy, of the environment of scripts/setup

Each round, in turn: the file read by `cat` and loaded by `dsengine score` of one token; with the file's pages dropped
from the page cache before each ("cold"), and with them there ("warm"). "load" is the time of that command less that
of the same command with a model of 200 KB. The anonymous memory is /proc/PID/status's RssAnon, read every 2 ms, less
the highest that the small model reaches. Results: bench/results/loading.jsonl.
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
from random_llama import write_model

CONFIG = {"architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 4096,
          "num_hidden_layers": 12, "num_attention_heads": 16, "num_key_value_heads": 8, "max_position_embeddings": 256,
          "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": False}


def drop(path):  # its pages from the page cache
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def seconds(command):
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def peak_bytes(command):
    process, peak = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), 0
    while process.poll() is None:
        for line in open(f"/proc/{process.pid}/status"):
            if line.startswith("RssAnon"):
                peak = max(peak, int(line.split()[1]) * 1024)
        time.sleep(0.002)
    return peak


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", type=Path, default=ROOT / "build/release/bin/dsengine")
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--folder", type=Path, help="where the model is written (1 GB); a temporary folder")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        folder = Path(folder)
        size = write_model(folder, CONFIG)
        weights = folder / "model.safetensors"
        (folder / "ids.jsonl").write_text('{"input_ids": [5]}\n')
        score = lambda model: [options.binary, "score", "--model", model, "--input", folder / "ids.jsonl"]
        small = ROOT / "tests/golden/llama_gqa"
        result = {"model_bytes": size, "rounds": options.rounds}
        for state in ("cold", "warm"):
            reads, loads = [], []
            for _ in range(options.rounds):
                if state == "cold":
                    drop(weights)
                reads.append(seconds(["cat", weights]))
                if state == "cold":
                    drop(weights)
                loads.append(seconds(score(folder)) - seconds(score(small)))
            result[state] = {"read_seconds": round(statistics.median(reads), 3),
                             "load_seconds": round(statistics.median(loads), 3),
                             "load_per_read": round(statistics.median(l / r for l, r in zip(loads, reads)), 2)}
        peaks = [peak_bytes(score(folder)) - peak_bytes(score(small)) for _ in range(3)]
        result["anonymous_peak_bytes"] = max(peaks)
        result["anonymous_peak_per_model"] = round(max(peaks) / size, 3)
    print(json.dumps(result))
    with open(ROOT / "bench/results/loading.jsonl", "w") as file:
        file.write(f"# bench/loading/load_speed.py --rounds {options.rounds}\n{json.dumps(result)}\n")


main()
