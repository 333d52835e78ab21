"""Weak scaling over ranks of one thread each: scaling.py BINARY [ROUNDS]

Supervised fine-tuning of a LLaMA-shaped model of 6.7 million parameters with random weights: 8 records a step on one rank, 16
on two (each as much work a rank), in turn for ROUNDS (5) rounds, zero_stage 0 and 2. A JSON line for each way: the median
tokens a second, and, for two ranks, efficiency: a rank's share of them beside one rank's alone. One rank alone has the
machine to itself, as it would have a machine of its own; two of one machine share its memory's bandwidth.
"""
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

BINARY = str(pathlib.Path(sys.argv[1]).resolve())
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
TINY = pathlib.Path(__file__).resolve().parent.parent.parent / "examples/tiny"
STEPS = 12
CONFIG = """
seed = 1
threads = 1
[model]
actor = "model"
init = "random"
[[stage]]
name = "sft"
algorithm = "sft"
eval_rows = 1
data.sources = [{ path = "sft.jsonl" }]
data.max_length = 128
"""


def tokens_per_second(ranks, zero):
    start = ["mpirun", "-n", str(ranks), "--allow-run-as-root", "--oversubscribe", "--bind-to", "core"]
    sets = [f"stage.sft.max_steps={STEPS}", f"stage.sft.mini_batch_size={8 * ranks}", f"stage.sft.zero_stage={zero}", "output_dir=run"]
    shutil.rmtree("run", ignore_errors=True)
    subprocess.run([*start, BINARY, "run", "--config", "run.toml", *(a for s in sets for a in ("--set", s))], check=True, capture_output=True)
    rows = [json.loads(line) for line in pathlib.Path("run/sft/metrics.jsonl").read_text().splitlines()][2:]
    return sum(r["tokens"] for r in rows) / sum(r["seconds"] for r in rows)


with tempfile.TemporaryDirectory() as folder:
    import os
    os.chdir(folder)
    shutil.copytree(TINY / "model", "model")
    shutil.copy(TINY / "data/sft.jsonl", ".")
    config = json.loads(pathlib.Path("model/config.json").read_text())
    config.update(hidden_size=256, intermediate_size=768, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4, head_dim=32)
    pathlib.Path("model/config.json").write_text(json.dumps(config))
    pathlib.Path("run.toml").write_text(CONFIG)
    ways = [(1, 0), (2, 0), (2, 2)]
    rates = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            rates[way].append(tokens_per_second(*way))
    alone = statistics.median(rates[(1, 0)])
    for (ranks, zero), found in rates.items():
        rate = statistics.median(found)
        line = {"ranks": ranks, "zero_stage": zero, "tokens_per_s": round(rate), "spread": [round(min(found)), round(max(found))]}
        if ranks > 1:
            line["efficiency"] = round(rate / ranks / alone, 3)
        print(json.dumps(line), flush=True)
