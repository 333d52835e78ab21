#!/usr/bin/env python3
"""AdamW's moments in fewer bits: 200 steps of the built-in fine-tuning, beside the same in float32.

  bench/memory/moments.py [--binary FILE] [--steps N]
  # needs: cmake --build --preset release

"loss": of the steps, the mean of each 20; "ratio": of each such mean to float32's. The records and their order are the
same. Results: bench/results/moments.jsonl.
"""
import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WINDOW = 20


def losses(binary, moments, steps, folder):
    sets = [f"moments={moments}", f"stage.sft.max_steps={steps}", "stage.sft.eval_rows=8", f"output_dir={folder}"]
    done = subprocess.run([binary, "--plugin", "sft"] + [part for one in sets for part in ("--set", one)],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in (Path(folder) / "sft/metrics.jsonl").read_text().splitlines()]
    loss = [line["loss"] for line in lines]
    return ([statistics.mean(loss[i:i + WINDOW]) for i in range(0, len(loss), WINDOW)],
            max(line["memory_moments_mb"] for line in lines), statistics.median(line["seconds"] for line in lines))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", type=Path, default=ROOT / "build/release/bin/dsengine")
    arguments.add_argument("--steps", type=int, default=200)
    options = arguments.parse_args()
    rows, exact = [], None
    for moments in ("fp32", "bf16", "8bit"):
        with tempfile.TemporaryDirectory() as folder:
            loss, mb, seconds = losses(options.binary, moments, options.steps, folder)
        exact = exact or loss
        rows.append(json.dumps({"moments": moments, "moments_mb": round(mb, 3), "step_s": round(seconds, 4),
                                "loss": [round(x, 4) for x in loss],
                                "ratio": [round(a / b, 4) for a, b in zip(loss, exact)]}))
        print(rows[-1], flush=True)
    (ROOT / "bench/results/moments.jsonl").write_text(f"# bench/memory/moments.py --steps {options.steps}\n"
                                                      + "\n".join(rows) + "\n")


main()
