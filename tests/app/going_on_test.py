"""Stopping a run and going on with it: going_on_test.py BINARY

The sft stage of the built-in default, made short. A signal before the first step, a terminal or a log pipe that closes, a
folder that is removed, a checkpoint that is damaged, a model, record or output that was changed, a stage that is made
longer: what the run says and how it exits, and that going on gives the uninterrupted run's weights, metrics and
evaluations bit for bit.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BINARY = pathlib.Path(sys.argv[1]).resolve()
EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
TIMES = ("seconds", "tokens_per_second", "memory_", "peak_memory_mb", "wall_time")
SHORT = ["threads=2", "checkpoint_every=2", "eval_rows=8", "eval_every=2", "mini_batch_size=8", "schedule=constant"]


class Runs:
    """Runs of one configuration, a copy of the built-in default's files."""

    def __init__(self, work):
        self.work = work
        shutil.copytree(EXAMPLES / "tiny", work / "tiny")
        shutil.copy(EXAMPLES / "rlhf_tiny.toml", work / "run.toml")

    def start(self, name, *arguments, steps=5, sets=(), stage="sft", **popen):
        command = [BINARY, "--plugin", stage, "--config", self.work / "run.toml", "--set", f"output_dir={self.work / name}",
                   "--set", f"stage.sft.max_steps={steps}", "--set", "stage.reward.max_steps=2"]
        for setting in [*SHORT, *sets]:
            command += ["--set", setting]
        popen = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, **popen}
        return subprocess.Popen([*command, *arguments], **popen)

    def run(self, name, *arguments, expect=0, **options):
        process = self.start(name, *arguments, **options)
        output = process.communicate(timeout=300)[1]
        assert process.returncode == expect, f"{name}: exit {process.returncode}, expected {expect}:\n{output[-2000:]}"
        return output

    def refused(self, name, *needles, **options):
        output = self.run(name, expect=1, **options)
        errors = [line for line in output.splitlines() if "error: " in line]
        assert len(errors) == 1, f"{name}: {errors or output}"
        for needle in needles:
            assert needle in errors[0], f"{name}: no {needle!r} in: {errors[0]}"

    def results(self, name, stage="sft"):
        folder = self.work / name / stage
        rows = [{k: v for k, v in json.loads(line).items() if not k.startswith(TIMES)}
                for file in ("metrics.jsonl", "eval.jsonl") for line in (folder / file).read_text().splitlines()]
        return rows, (folder / "model/model.safetensors").read_bytes()

    def expect_equal(self, name, to):
        assert self.results(name) == self.results(to), f"{name} differs from {to}"
        print(f"{name}: equal to {to}", flush=True)

    def checkpoints(self, name):
        return sorted(p.name for p in (self.work / name / "sft/checkpoints").iterdir())


def wait_for(path, text=""):
    for _ in range(3000):
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} does not come")


def signals(runs):
    for name, number in (("sigterm", signal.SIGTERM), ("sighup", signal.SIGHUP), ("sigint", signal.SIGINT)):
        process = runs.start(name, steps=2000)
        wait_for(runs.work / name / "sft/metrics.jsonl", "\n")
        process.send_signal(number)
        output = process.communicate(timeout=60)[1]
        assert process.returncode == 128 + number, f"{name}: exit {process.returncode}: {output[-500:]}"
        assert "go on" in output and runs.checkpoints(name), output
        print(f"{name}: exit {process.returncode}, checkpoints {runs.checkpoints(name)}")
    # Before the first step: nothing is lost of what comes before it.
    process = runs.start("early", bufsize=0)
    wait_for(runs.work / "early/log.txt", "role name=actor")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143, process.returncode
    runs.run("early")
    runs.expect_equal("early", "whole")
    # As nohup does: a signal that was ignored is no wish to stop.
    process = runs.start("nohup", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_for(runs.work / "nohup/log.txt", "role name=actor")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=120)
    assert process.returncode == 0, process.returncode
    runs.expect_equal("nohup", "whole")


def closed_log(runs):
    process = runs.start("closed", bufsize=0)
    process.stderr.read(1)
    process.stderr.close()
    assert process.wait(timeout=120) == 0, process.returncode
    runs.expect_equal("closed", "whole")
    assert "saved directory" in (runs.work / "closed/log.txt").read_text()


def removed_folder(runs):
    process = runs.start("removed", steps=2000)
    wait_for(runs.work / "removed/sft/metrics.jsonl", "\n")
    os.rename(runs.work / "removed", runs.work / "elsewhere")
    shutil.rmtree(runs.work / "elsewhere")
    output = process.communicate(timeout=60)[1]
    errors = [line for line in output.splitlines() if "error: " in line]
    assert process.returncode == 1 and len(errors) == 1 and "removed" in errors[0], (process.returncode, output[-500:])
    assert not (runs.work / "removed").exists()
    print(errors[0])


def damaged(runs):
    """Stopped at a signal after checkpoints of steps 2 and 4, then one byte of the newest changes."""
    runs.run("stopped", steps=4)
    stage = runs.work / "stopped/sft"
    (stage / "done.json").unlink()
    shutil.rmtree(stage / "model")
    (stage / "checkpoints/step-old").mkdir()
    for i, file in enumerate(("actor.safetensors", "manifest.json")):
        name = f"damaged-{i}"
        shutil.copytree(runs.work / "stopped", runs.work / name)
        newest = runs.work / name / "sft/checkpoints/step-00000004" / file
        data = bytearray(newest.read_bytes())
        data[len(data) // 2] ^= 1
        newest.write_bytes(data)
        output = runs.run(name)
        assert "checkpoint_damaged" in output and file in output, output[-1500:]
        assert "damaged-step-00000004" in runs.checkpoints(name), runs.checkpoints(name)
        runs.expect_equal(name, "whole")
        shutil.rmtree(runs.work / name / "sft/checkpoints/damaged-step-00000004")
    # A file of one step in another; no other checkpoint.
    shutil.copytree(runs.work / "stopped", runs.work / "swapped")
    checkpoints = runs.work / "swapped/sft/checkpoints"
    shutil.copy(checkpoints / "step-00000002/actor.safetensors", checkpoints / "step-00000004/actor.safetensors")
    shutil.rmtree(checkpoints / "step-00000002")
    runs.refused("swapped", "step-00000004/actor.safetensors", "delete")
    os.rename(checkpoints / "step-00000004", checkpoints / "step-00000007")
    runs.refused("swapped", "step-00000007")
    # Metrics of the steps that are not done again.
    shutil.copytree(runs.work / "stopped", runs.work / "metrics")
    file = runs.work / "metrics/sft/metrics.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"step":1,', b'"step":7,'))
    runs.refused("metrics", "metrics.jsonl", "--accept-changes")
    runs.run("metrics", "--accept-changes")
    assert runs.results("metrics")[1] == runs.results("whole")[1]


def changed(runs):
    """What the stage began with is another when it goes on."""
    config, records = runs.work / "tiny/model/config.json", runs.work / "tiny/data/sft.jsonl"
    whole = config.read_text(), records.read_text()
    config.write_text(whole[0].replace("\n", " \n", 1))
    runs.refused("stopped", "another actor", "config.json", "--accept-changes")
    config.write_text(whole[0])
    lines = whole[1].splitlines(keepends=True)
    records.write_text("".join(lines[:-1]))
    runs.refused("stopped", "another records", "sft.jsonl")
    records.write_text("".join(lines).replace("\n", " \n"))  # the same records, spelled otherwise
    runs.run("stopped")
    runs.expect_equal("stopped", "whole")
    records.write_text(whole[1])
    # A finished stage's weights, before the next stage loads them.
    weights = runs.work / "stopped/sft/model/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    runs.refused("stopped", str(weights), "--accept-changes", stage="reward")
    runs.run("stopped", "--accept-changes", stage="reward")
    runs.run("stopped", stage="reward")


def longer(runs):
    runs.run("longer", steps=3)
    runs.run("longer", steps=5)
    runs.expect_equal("longer", "whole")
    runs.refused("longer", "5 steps already", steps=4)
    runs.run("even", steps=4)  # its last step is one that a longer stage evaluates
    runs.run("even", steps=5)
    runs.expect_equal("even", "whole")
    cosine = ["schedule=cosine", "warmup_steps=1"]
    runs.run("cosine", steps=3, sets=cosine)
    runs.refused("cosine", "schedule", "--accept-changes", sets=cosine)
    runs.run("cosine", "--accept-changes", sets=cosine)
    assert len(runs.results("cosine")[0]) > 5
    # The stage that was trained from the shorter one is told.
    runs.run("chain", steps=3, stage="reward")
    runs.refused("chain", "another", "reward", stage="reward")
    shutil.rmtree(runs.work / "gone", ignore_errors=True)
    runs.run("gone", steps=3)
    shutil.rmtree(runs.work / "gone/sft/checkpoints")
    runs.refused("gone", "checkpoint")


def checked_before_written(runs):
    """A fault of the last stage is told before anything is written for the first."""
    broken = runs.work / "broken.jsonl"
    broken.write_text('{"text": "no pair"}\n')
    runs.refused("unwritten", "broken.jsonl", stage="reward", sets=[f'stage.reward.data.sources=[{{path="{broken}"}}]'])
    empty = runs.work / "empty"
    empty.mkdir()
    runs.refused("unwritten", "empty", stage="ppo", sets=[f'stage.ppo.reward={{from="{empty}"}}'])
    assert not (runs.work / "unwritten").exists()


def main():
    with tempfile.TemporaryDirectory() as work:
        runs = Runs(pathlib.Path(work))
        runs.run("whole")
        for part in (checked_before_written, signals, closed_log, removed_folder, damaged, changed, longer):
            part(runs)


main()
