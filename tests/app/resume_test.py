"""A run that is killed goes on as if it had not been: resume_test.py BINARY COUNTING_KERNEL KILL_AT_SYNC [MOMENTS [SETTING…]]

The three stages of the built-in default, made short, run whole twice (one seed, two threads: equal bit for bit), then
once for each of MOMENTS moments (20): killed there as by kill -9, and started again. Moments are spread over the
forwards (rollouts, scoring and training of all stages), over the backwards, and over the fsync and rename calls of
checkpoints, model directories and metrics. SETTINGs are the run's beside its own. Every final file of weights must equal the uninterrupted run's, and so must
the metrics but for their times. Last, SIGTERM: exit 143 after the step in hand, and the same again.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

BINARY, KERNEL, SHIM = (str(pathlib.Path(p).resolve()) for p in sys.argv[1:4])
MOMENTS = int(sys.argv[4]) if len(sys.argv) > 4 else 20
SHORT = ["threads=2", "ema_decay=0.8", "checkpoint_every=2", "eval_rows=8", "eval_every=2", "stage.sft.max_steps=5", "stage.sft.mini_batch_size=8",
         "stage.reward.max_steps=5", "stage.reward.mini_batch_size=8", "stage.ppo.max_steps=5", "stage.ppo.mini_batch_size=8",
         "stage.ppo.micro_batch_size=4", "stage.ppo.ppo_epochs=2", "stage.ppo.rollout.batch_size=16",
         "stage.ppo.rollout.max_response_length=12", "stage.ppo.rollout.slots=6", *sys.argv[5:]]
WEIGHTS = ["sft/model", "sft/ema", "reward/model", "reward/ema", "ppo/model", "ppo/ema", "ppo/critic", "ppo/critic_ema"]
TIMES = ("seconds", "tokens_per_second", "memory_", "peak_memory_mb", "wall_time", "moved_mb")


def start(folder, **environment):
    command = [BINARY, "--plugin", "ppo", "--set", f"output_dir={folder}", "--set", f'plugins=[{{file="{KERNEL}"}}]']
    for setting in SHORT:
        command += ["--set", setting]
    return subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(folder, expect=0, **environment):
    process = start(folder, **environment)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == expect, f"exit {process.returncode}, expected {expect}:\n{output[-3000:]}"
    return output


def metrics(folder):
    rows = []
    for stage in ("sft", "reward", "ppo"):
        for file in ("metrics.jsonl", "eval.jsonl"):
            for line in (folder / stage / file).read_text().splitlines():
                rows.append({k: v for k, v in json.loads(line).items() if not k.startswith(TIMES)})
    return rows


def expect_equal(folder, whole, what):
    for name in WEIGHTS:
        a, b = ((f / name / "model.safetensors").read_bytes() for f in (folder, whole))
        assert a == b, f"{what}: {name} differs from the uninterrupted run's"
    assert metrics(folder) == metrics(whole), f"{what}: metrics differ"
    kept = [sorted(p.name for p in f.glob("*/checkpoints/*")) for f in (folder, whole)]
    assert kept[0] == kept[1], f"{what}: checkpoints {kept[0]}, uninterrupted {kept[1]}"
    left = [str(p) for p in folder.rglob("*") if ".tmp" in p.name or p.name.endswith(".old")]
    assert not left, f"{what}: left behind: {left}"


def main():
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        whole = scratch / "whole"
        run(whole, DSE_COUNT_FILE=str(scratch / "calls"), DSE_SYNC_COUNT_FILE=str(scratch / "syncs"), LD_PRELOAD=SHIM)
        calls, syncs = json.loads((scratch / "calls").read_text()), int((scratch / "syncs").read_text())
        steps = [row for row in metrics(whole) if "loss" in row]
        assert len(steps) == 15 and all(row["grad_norm"] > 0 for row in steps), "the run did not train"
        run(scratch / "again")
        expect_equal(scratch / "again", whole, "a second run")
        print(f"two runs are equal; {calls['rms_norm']} forward calls, {calls['rms_norm.backward']} backward, {syncs} syncs")

        # Denser at the beginning: most calls are those of PPO's rollouts, and each stage is to be met.
        spread = lambda total, count: [max(1, round(total * ((i + 0.5) / count) ** 2)) for i in range(count)]
        evenly = lambda total, count: [max(1, round(total * (i + 0.5) / count)) for i in range(count)]
        forwards, backwards = round(MOMENTS * 0.4), round(MOMENTS * 0.25)
        moments = [{"DSE_KILL_OPERATION": "rms_norm", "DSE_KILL_CALL": str(n)} for n in spread(calls["rms_norm"], forwards)]
        moments += [{"DSE_KILL_OPERATION": "rms_norm.backward", "DSE_KILL_CALL": str(n)}
                    for n in spread(calls["rms_norm.backward"], backwards)]
        moments += [{"LD_PRELOAD": SHIM, "DSE_KILL_SYNC": str(n)} for n in evenly(syncs, MOMENTS - forwards - backwards)]
        met = set()
        for i, moment in enumerate(moments):
            folder = scratch / f"killed-{i}"
            run(folder, expect=-signal.SIGKILL, **moment)
            done = sorted(str(p.relative_to(folder)) for p in folder.glob("*/done.json"))
            met.add((len(done), moment.get("DSE_KILL_OPERATION", "sync")))
            run(folder)
            what = ", ".join(f"{k}={v}" for k, v in moment.items() if k != "LD_PRELOAD")
            expect_equal(folder, whole, what)
            print(f"killed at {what} ({len(done)} stages done): resumed, equal", flush=True)
        if MOMENTS >= 20:
            missing = {(s, o) for s in (0, 1, 2) for o in ("rms_norm", "rms_norm.backward", "sync")} - met
            assert not missing, f"stages and operations that no kill met: {missing}"

        folder = scratch / "stopped"
        process = start(folder)
        while not (folder / "ppo/metrics.jsonl").exists() or not (folder / "ppo/metrics.jsonl").read_text():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
        was_stopped = not (folder / "ppo/done.json").exists()
        assert process.returncode == (128 + signal.SIGTERM if was_stopped else 0), output
        run(folder)
        expect_equal(folder, whole, "SIGTERM")
        print(f"SIGTERM: exit {process.returncode} ({'stopped and resumed' if was_stopped else 'came after the last step'}), equal")


main()
