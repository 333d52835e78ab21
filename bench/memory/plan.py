#!/usr/bin/env python3
"""What `dsengine plan` foretells beside what a run then takes: memory, and seconds a step.

  bench/memory/plan.py [--binary FILE] [--only NAME]…
  # needs: cmake --build --preset release

The built-in task with a larger model (40M parameters, so that each case holds 0.5 GB of state at least), three steps of a
stage. memory: the peak of the plan's phases, and the most that the run's ledger had in a step (memory_peak_mb), which an evaluation
and what is saved at the end are no part of; in both what is offloaded counts. seconds: of a step, the median of the run's. Results: bench/results/memory_plan.jsonl.
"""
import json
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from cases import ROOT, options_of, wanted, write
from steps import SHAPE

SFT = {"stage.sft.max_steps": 3, "mini_batch_size": 16}
PPO = {"stage.sft.max_steps": 1, "stage.reward.max_steps": 1, "stage.ppo.max_steps": 3, "mini_batch_size": 16,
       "stage.ppo.rollout.batch_size": 16, "stage.ppo.rollout.max_response_length": 24}
# name: stage, settings
CASES = {
    "full": ("sft", SFT),
    "recompute": ("sft", SFT | {"recompute": "true"}),
    "8-bit moments": ("sft", SFT | {"moments": "8bit"}),
    "bf16 moments, average": ("sft", SFT | {"moments": "bf16", "ema_decay": 0.99}),
    "reward model": ("reward", SFT | {"stage.reward.max_steps": 3}),
    "ppo": ("ppo", PPO),
    "ppo, lora": ("ppo", PPO | {"lora.rank": 16}),
    "ppo, micro-batches of 4": ("ppo", PPO | {"micro_batch_size": 4}),
    "grpo, 8 samples": ("grpo", PPO | {"stage.ppo.rollout.samples_per_prompt": 8, "stage.ppo.rollout.batch_size": 4}),
    "offload": ("sft", SFT | {"offload.moments": "true", "offload.average": "true", "ema_decay": 0.99}),
    "streamed": ("sft", SFT | {"offload.moments": "true", "offload.gradients": "true", "offload.weights": "true"}),
    "ppo, lora, offload": ("ppo", PPO | {"lora.rank": 16, "offload.moments": "true", "offload.frozen": "true"}),
    "lora on nf4": ("sft", SFT | {"lora.rank": 16, "lora.base": "nf4", "recompute": "true"}),
}
# Of 800M parameters, half a byte each.
LARGE = {"lora on nf4": SHAPE | {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 16,
                                 "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 128}}


def config_of(case, folder):
    stage, settings = CASES[case]
    shutil.copytree(ROOT / "examples/tiny", folder / "tiny")
    file = folder / "tiny/model/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | LARGE.get(case, SHAPE)))
    run = folder / "run.toml"
    text = (ROOT / "examples/rlhf_tiny.toml").read_text()
    if stage == "grpo":  # in PPO's place
        text = text.replace('algorithm = "ppo"', 'algorithm = "grpo"').replace("plugin.ppo = { kl_coef = 0.05 }\n", "")
        text = text.replace("critic = { learning_rate = 5e-4 }\n", "")
    run.write_text(text)
    sets = settings | {"eval_every": 0, "checkpoint_every": 0, "learning_rate": 1e-6, "output_dir": folder / "out"}
    return ["--config", run] + [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]


def run(command):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, (command, done.stderr[-2000:])
    return done.stdout


def measure(binary, case, folder):
    stage = {"grpo": "ppo"}.get(CASES[case][0], CASES[case][0])
    config = config_of(case, folder)
    plan = next(line for line in map(json.loads, run([binary, "plan", *config, "--json"]).splitlines())
                if line["stage"] == stage)
    run([binary, "--plugin", CASES[case][0], *config])  # and what comes before it
    lines = [json.loads(line) for line in (folder / "out" / stage / "metrics.jsonl").read_text().splitlines()]
    real = {"mb": max(line["memory_peak_mb"] + line.get("memory_offloaded_mb", 0) for line in lines), "s": statistics.median(line["seconds"] for line in lines)}
    in_a_step = [phase["peak_gib"] for name, phase in plan["phases"].items() if name not in ("evaluation", "other")]
    planned = {"mb": 1024 * (max(in_a_step) + plan["offloaded_gib"]), "s": plan["seconds_per_step"]}
    return {"case": case, "state_mb": round(1024 * (plan["state_gib"] + plan["offloaded_gib"])),
            "plan_mb": round(planned["mb"]), "run_mb": round(real["mb"]), "memory": round(planned["mb"] / real["mb"], 3),
            "plan_s": round(planned["s"], 3), "run_s": round(real["s"], 3), "seconds": round(planned["s"] / real["s"], 3)}


def main():
    options, results = options_of(__doc__), []
    for case in wanted(CASES, options):
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(options.binary, case, Path(folder)))
        print(json.dumps(results[-1]), flush=True)
    write(results, "memory_plan", "bench/memory/plan.py", options)


main()
