"""dsengine plan and memory_limit: plan_test.py BINARY FAKE_DRIVER

What is foretold of each stage of the built-in run; a run that would need more than memory_limit begins nothing and says what
fits; one that fits stays below; one that needs more than was foretold ends in one line.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

BINARY = str(pathlib.Path(sys.argv[1]).resolve())
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SHORT = ["stage.sft.max_steps=2", "stage.reward.max_steps=2", "stage.ppo.max_steps=2", "eval_rows=8", "checkpoint_every=0"]


def dsengine(command, *arguments, sets=()):
    options = [part for one in (*SHORT, *sets) for part in ("--set", one)]
    return subprocess.run([BINARY, command, *arguments, *options], capture_output=True, text=True, timeout=600)


def plans(*sets):
    done = dsengine("plan", "--json", "--price", "2", sets=sets)
    return done, {line["stage"]: line for line in map(json.loads, done.stdout.splitlines())}


def check_lines():
    done, stages = plans()
    assert done.returncode == 0 and list(stages) == ["sft", "reward", "ppo"], done.stderr
    for line in stages.values():
        assert line["fits"] and line["steps"] == 2 and 0 < line["state_gib"] < line["peak_gib"], line
        phases = line["phases"]
        assert line["peak_gib"] == max(phase["peak_gib"] for phase in phases.values()), line
        assert line["peak_gib"] == phases[line["peak_phase"]]["peak_gib"], line
        for phase in phases.values():
            assert abs(sum(phase["gib"].values()) - phase["peak_gib"]) < 1e-9, phase
        assert abs(line["hours"] - 2 * line["seconds_per_step"] / 3600) < 1e-9 and line["cost"] == 2 * line["hours"], line
        assert [saving["settings"] for saving in line["savings"]][0] == "recompute = true", line
        assert all(saving["peak_gib"] > 0 for saving in line["savings"]), line
        assert "fits_with" not in line and line["largest"]["settings"].startswith("micro_batch_size = "), line
    assert set(stages["sft"]["phases"]) == {"actor", "other"}, stages["sft"]
    assert set(stages["ppo"]["phases"]) == {"generate", "score", "actor", "critic", "other", "evaluation"}, stages["ppo"]
    # Of 452,256 parameters: the weights, as many bytes of gradients, twice as many of moments.
    parameters = 452256 * 4 / 2**30
    gib = stages["sft"]["phases"]["actor"]["gib"]
    for tag, times in (("weights", 1), ("gradients", 1), ("moments", 2)):
        assert 1 <= gib[tag] / (times * parameters) < 1.01, (tag, gib)
    # Two models are trained, two are asked; a value has no head.
    assert 3.6 < stages["ppo"]["phases"]["actor"]["gib"]["weights"] / parameters < 4.05, stages["ppo"]
    table = dsengine("plan")
    for word in ("stage ppo", "weights", "kv_cache", "it fits", "largest micro-batch"):
        assert word in table.stdout, (word, table.stdout)
    return stages


def check_limit(stages, folder):
    limit = (stages["sft"]["state_gib"] + stages["sft"]["peak_gib"]) / 2  # too little for the whole minibatch at once
    small = [f"memory_limit={limit}", f"output_dir={folder}/run"]
    refused = dsengine("--plugin", "sft", sets=small)
    last = refused.stderr.strip().splitlines()[-1]
    assert refused.returncode == 1 and "(memory_limit)" in last and "it fits with micro_batch_size = " in last, refused.stderr
    assert any("plan stage=sft phase=actor" in line for line in refused.stderr.splitlines()), refused.stderr
    assert not (folder / "run").exists(), "nothing is written before it is known to fit"
    # With what it says it runs, and stays below. What comes after is not looked at.
    setting = "stage.sft." + last.split("it fits with ")[1].split(" (")[0].replace(" = ", "=")
    ran = dsengine("--plugin", "sft", sets=[*small, setting])
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in (folder / "run/sft/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and all(line["memory_peak_mb"] <= 1024 * limit for line in lines), lines
    # The limit is no setting of what is computed: a larger one goes on with the run.
    going_on = dsengine("--plugin", "sft", sets=[small[1], setting, "stage.sft.max_steps=3", "memory_limit=1"])
    assert going_on.returncode == 0, going_on.stderr
    nothing, line = plans("memory_limit=0.0001")
    assert nothing.returncode == 1 and line["sft"]["fits_with"] is None, line


# Answers that are longer than they may become by the configuration, as only a replay's can be.
def check_longer_than_planned(folder):
    recorded = [f"stage.ppo.rollout.record={folder}/rollouts", f"output_dir={folder}/recorded"]
    done = dsengine("run", sets=recorded)
    assert done.returncode == 0, done.stderr
    small = ["stage.sft.mini_batch_size=4", "stage.reward.mini_batch_size=4"]  # so that the last stage is the largest
    replay = [*small, f"stage.ppo.rollout.replay={folder}/rollouts", "stage.ppo.rollout.max_response_length=2"]
    _, stages = plans(*replay)
    limit = 1.1 * stages["ppo"]["peak_gib"]
    assert limit > max(stages[name]["peak_gib"] for name in ("sft", "reward")), stages
    ended = dsengine("run", sets=[*replay, f"memory_limit={limit}", f"output_dir={folder}/replayed"])
    last = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == 1 and "not enough memory" in last and "(memory_limit) are held" in last, ended.stderr[-3000:]
    assert not (folder / "replayed/ppo/done.json").exists()


def check_cards(stages):
    done = dsengine("plan", "--json", "--gpu", "v100-32", sets=["stage.sft.mini_batch_size=4"])
    line = json.loads(done.stdout.splitlines()[0])
    assert line["device"] == "v100-32" and "CUDA 13" in line["note"] and line["device_gib"] > 31, line
    rest = line["device_gib"] - line["libraries_gib"]
    assert abs(line["memory_limit_gib"] * 1.03 - rest) < 1e-6, line
    other = json.loads(dsengine("plan", "--json", "--gpu", "h200", sets=["dtype=fp32"]).stdout.splitlines()[0])
    assert other["state_gib"] == stages["sft"]["state_gib"] and other["memory_limit_gib"] > 130, other
    # Weights of 2 bytes beside 4, gradients of 4 and moments of 8.
    narrow = json.loads(dsengine("plan", "--json", "--gpu", "h200", sets=["dtype=bf16"]).stdout.splitlines()[0])
    assert 1.1 < narrow["state_gib"] / other["state_gib"] < 1.15 and narrow["dtype"] == "bf16", (narrow, other)
    # On a cpu what is offloaded is in the same memory; a card's plan has less of its own, and the time of the link.
    away = ["offload.moments=true", "offload.gradients=true", "offload.weights=true"]
    gone = json.loads(dsengine("plan", "--json", "--gpu", "h200", sets=[*away, "dtype=fp32"]).stdout.splitlines()[0])
    assert gone["state_gib"] < 0.1 * other["state_gib"] and gone["offloaded_gib"] > 0.9 * other["state_gib"], gone
    assert gone["seconds_per_step"] > other["seconds_per_step"], gone
    alone = dsengine("--plugin", "sft", sets=["offload.weights=true"])
    assert alone.returncode == 1 and "offload.moments and offload.gradients" in alone.stderr.splitlines()[-1], alone.stderr
    unknown = dsengine("plan", "--gpu", "h300")
    assert unknown.returncode == 1 and "h300" in unknown.stderr.splitlines()[-1], unknown.stderr


# The machine's own card, as its driver's library tells of it; here one that tells what it is asked to.
def check_auto(stages, library):
    def found(name, gib):
        sets = [part for one in SHORT for part in ("--set", one)]
        environment = os.environ | {"LD_LIBRARY_PATH": str(library.parent), "FAKE_CARD": name, "FAKE_CARD_GIB": str(gib)}
        done = subprocess.run([BINARY, "plan", "--json", "--gpu", "auto", *sets], capture_output=True, text=True, timeout=600,
                              env=environment)
        return done, json.loads(done.stdout.splitlines()[0]) if done.stdout else None

    done, line = found("NVIDIA A100-SXM4-40GB", 40)
    assert done.returncode == 0 and line["device"] == "a100-40" and line["device_gib"] == 40, (line, done.stderr)
    done, line = found("NVIDIA H100 NVL", 94)  # more of it than the others of its name
    assert line["device"] == "h100" and line["device_gib"] == 94, (line, done.stderr)
    done, line = found("NVIDIA Unheard-of", 8)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and line is None and "'NVIDIA Unheard-of' (8.0 GiB)" in last and "h200" in last, done.stderr
    done, line = found("", 0)  # a driver without a card
    assert done.returncode == 0 and line["device"] == "cpu" and line["peak_gib"] == stages["sft"]["peak_gib"], (line, done.stderr)


def check_batches(stages):
    done = dsengine("plan", "--json", "--batch", "4", "8")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(lines) == 6, done.stderr
    batches = {(line["stage"], line["batch"]): line for line in lines}
    # Of a pair the rows are two; a rollout has as many prompts.
    assert set(batches) == {("sft", 4), ("sft", 8), ("reward", 2), ("reward", 4), ("ppo", 4), ("ppo", 8)}, batches.keys()
    for small, large in ((("sft", 4), ("sft", 8)), (("reward", 2), ("reward", 4)), (("ppo", 4), ("ppo", 8))):
        assert batches[small]["peak_gib"] < batches[large]["peak_gib"] < stages[small[0]]["peak_gib"], (small, large)
    odd = dsengine("plan", "--batch", "3")
    assert odd.returncode == 1 and "two a pair" in odd.stderr.splitlines()[-1], odd.stderr


# The reference, which serves where no kernel does, is planned for too.
def check_without_kernels(stages, folder):
    build = pathlib.Path(BINARY).parent.parent
    shutil.copytree(build / "lib/dsengine", folder / "lib/dsengine", ignore=shutil.ignore_patterns("*kernels*"))
    shutil.copy(build / "lib/libdsengine_program.so", folder / "lib")
    (folder / "bin").mkdir()
    shutil.copy(BINARY, folder / "bin/dsengine")
    sets = [part for one in SHORT for part in ("--set", one)]
    command = [folder / "bin/dsengine", "plan", "--json", "--config", ROOT / "examples/rlhf_tiny.toml", *sets]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = {line["stage"]: line for line in map(json.loads, done.stdout.splitlines())}
    for name, line in lines.items():
        assert line["peak_gib"] > stages[name]["peak_gib"], (name, line)  # attention's scores, and larger batches


def main():
    stages = check_lines()
    check_cards(stages)
    check_auto(stages, pathlib.Path(sys.argv[2]).resolve())
    check_batches(stages)
    with tempfile.TemporaryDirectory() as folder:
        check_limit(stages, pathlib.Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        check_longer_than_planned(pathlib.Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        check_without_kernels(stages, pathlib.Path(folder))
    bad = dsengine("plan", sets=["memory_limit=-1"])
    assert bad.returncode == 1 and "memory_limit" in bad.stderr.splitlines()[-1], bad.stderr


main()
