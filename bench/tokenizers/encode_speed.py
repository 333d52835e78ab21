#!/usr/bin/env python3
"""Encoding speed on one core, ours and Hugging Face's tokenizers by turns, on the same English text.

  bench/tokenizers/encode_speed.py [--data DIR] [--rounds N]
  # needs: cmake --build --preset release --target encode_speed; the environment of scripts/setup

Speeds are of processor time, so that a busy machine does not count. Each tokenizer and text: first the cold round
(nothing cached), then the median of the others. "lines" encodes line by line, "whole" the text in one call. The counts
of tokens must agree; Hugging Face's encode makes offsets and masks besides. Results: bench/results/tokenizers.jsonl.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
ROOT = Path(__file__).resolve().parents[2]


def load(folder):
    if (folder / "tokenizer.json").exists():
        from tokenizers import Tokenizer
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    from transformers import GPT2Tokenizer
    return GPT2Tokenizer.from_pretrained(folder).backend_tokenizer


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=os.environ.get("DSENGINE_TEST_DATA"))
    arguments.add_argument("--rounds", type=int, default=7)
    options = arguments.parse_args()
    if not options.data:
        sys.exit("give --data, or set DSENGINE_TEST_DATA: a folder with tokenizers/, text/ and gsm8k/")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    results = [f"# bench/tokenizers/encode_speed.py --rounds {options.rounds}: megabytes a second of one core's time"]
    for name in ("gpt2", "llama3", "mistral"):
        theirs = load(Path(options.data) / "tokenizers" / name)
        for path in ("text/tinyshakespeare.txt", "gsm8k/train.jsonl"):
            file = Path(options.data) / path
            text = file.read_bytes().decode()
            for pieces in ("lines", "whole"):
                parts = text.splitlines(keepends=True) if pieces == "lines" else [text]
                if pieces == "lines" and "".join(parts) != text:
                    sys.exit(f"{path}: lines are cut elsewhere too")
                ours = subprocess.Popen([ROOT / "build/release/bin/encode_speed", Path(options.data) / "tokenizers" / name, file, pieces],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                speeds = {"dsengine": [], "tokenizers": []}
                for _ in range(options.rounds):
                    start = time.process_time()
                    count = sum(len(theirs.encode(part).ids) for part in parts)
                    speeds["tokenizers"].append(len(text.encode()) / 1e6 / (time.process_time() - start))
                    ours.stdin.write("\n")
                    ours.stdin.flush()
                    speed, our_count = ours.stdout.readline().split()
                    speeds["dsengine"].append(float(speed))
                    if int(our_count) != count:
                        sys.exit(f"{name}, {path}, {pieces}: {our_count} tokens, Hugging Face's {count}")
                ours.stdin.close()
                ours.wait()
                row = {"tokenizer": name, "text": path, "pieces": pieces, "tokens": count}
                for who, values in speeds.items():
                    row |= {f"{who}_cold": round(values[0], 2), who: round(statistics.median(values[1:]), 2)}
                results.append(json.dumps(row))
                print(results[-1], flush=True)
    (ROOT / "bench/results/tokenizers.jsonl").write_text("\n".join(results) + "\n")


if __name__ == "__main__":
    main()
