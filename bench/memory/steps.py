#!/usr/bin/env python3
"""Many steps of PPO: whether the process grows, and how much of what it holds the engine's ledger knows of.

  bench/memory/steps.py [--binary FILE] [--steps N]
  # needs: cmake --build --preset release

The built-in run with a larger model (40M parameters: actor and critic with gradients and moments, reference and reward
model hold more than 1 GB), after one step each of its first two stages. The process's anonymous memory is read from /proc
as it runs, above what it was as it began; the ledger's peak of each step is memory_peak_mb of metrics.jsonl. "unknown_mb" is
the most of the one less the most of the other; "growth_mb" what the last quarter of the steps held at most, less the same of
the second quarter. Results: bench/results/memory_steps.jsonl.
"""
import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHAPE = {"hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 8, "num_attention_heads": 10,
         "num_key_value_heads": 10, "head_dim": 64}


def settings(folder, steps):
    shutil.copytree(ROOT / "examples/tiny", folder / "tiny")
    file = folder / "tiny/model/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | SHAPE))
    run = folder / "run.toml"
    shutil.copy(ROOT / "examples/rlhf_tiny.toml", run)
    sets = ["stage.sft.max_steps=1", "stage.reward.max_steps=1", f"stage.ppo.max_steps={steps}", "mini_batch_size=4",
            "stage.ppo.rollout.batch_size=4", "stage.ppo.rollout.max_response_length=12", "eval_every=0",
            "checkpoint_every=0", f"output_dir={folder / 'out'}", "learning_rate=1e-6"]
    return ["run", "--config", run] + [part for one in sets for part in ("--set", one)]


def anonymous_mb(process):
    try:
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Anonymous:"):
                return int(line.split()[1]) / 1024
    except (OSError, ValueError):
        pass
    return 0


def measure(binary, steps, folder):
    process = subprocess.Popen([binary, *settings(folder, steps)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True)
    process.stderr.readline()  # it has begun
    start, metrics, samples = anonymous_mb(process), folder / "out/ppo/metrics.jsonl", []
    while process.poll() is None:
        time.sleep(0.02)
        done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        if 0 < done < steps:
            samples.append((done, anonymous_mb(process)))
    assert process.returncode == 0, process.stderr.read()
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    held = [line["memory_peak_mb"] for line in lines]
    most = max(mb for _, mb in samples) - start
    quarter = [max(mb for done, mb in samples if a * steps / 4 <= done < (a + 1) * steps / 4) for a in (1, 3)]
    ledger = max(held[1:])
    return {"steps": steps, "step_s": round(statistics.median(line["seconds"] for line in lines), 3),
            "state_mb": round(sum(lines[-1][f"memory_{tag}_mb"] for tag in ("weights", "gradients", "moments"))),
            "ledger_mb": round(ledger), "anonymous_mb": round(most), "unknown_mb": round(most - ledger),
            "allowed_mb": round(0.05 * ledger + 64), "growth_mb": round(quarter[1] - quarter[0], 1),
            "ledger_growth_mb": round(max(held[-steps // 4:]) - max(held[steps // 4:steps // 2]), 1)}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", type=Path, default=ROOT / "build/release/bin/dsengine")
    arguments.add_argument("--steps", type=int, default=200)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = json.dumps(measure(options.binary, options.steps, Path(folder)))
    print(result)
    (ROOT / "bench/results/memory_steps.jsonl").write_text(f"# bench/memory/steps.py --steps {options.steps}\n{result}\n")


if __name__ == "__main__":
    main()
