"""A run on several ranks beside the same run on one: ranks_test.py BINARY LIBRARY

mpirun starts the ranks. The built-in default's stages, made short, on 2 and 3 ranks: answers of the first step token for
token, metrics within 1e-5; one way of training beside another (algorithms, adapters, averages, groups, mixtures). Then
what goes wrong: a rank that is killed or stopped in each part of a run, an error of all, an error of one, a run that is
told to end; and the same run gone on with on another number of ranks. Skips, and says so, where there is no mpirun.
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

BINARY, LIBRARY = (pathlib.Path(p).resolve() for p in sys.argv[1:3])
MPIRUN = shutil.which("mpirun")
if not MPIRUN or not LIBRARY.exists():
    print(f"NOT TESTED: ranks want mpirun ({MPIRUN}) and {LIBRARY}")
    sys.exit(0)
if subprocess.run([MPIRUN, "-n", "2", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "true"], capture_output=True).returncode != 0:
    print("NOT TESTED: mpirun starts no processes here")
    sys.exit(0)
FULL = os.environ.get("DSENGINE_FULL") == "1"
SHORT = ["threads=1", "eval_rows=8", "stage.sft.max_steps=3", "stage.sft.mini_batch_size=8", "stage.reward.max_steps=3",
         "stage.reward.mini_batch_size=8", "stage.ppo.max_steps=3", "stage.ppo.mini_batch_size=8", "stage.ppo.eval_every=2",
         "stage.ppo.rollout.batch_size=16", "stage.ppo.rollout.max_response_length=12"]
OWN = ("seconds", "tokens_per_second", "memory_", "peak_memory_mb", "wall_time", "moved_mb")


def command(ranks, *arguments):
    start = [MPIRUN, "-n", str(ranks), "--oversubscribe", "--allow-run-as-root", "--bind-to", "none"] if ranks > 1 else []
    return [*start, str(BINARY), *map(str, arguments)]


def arguments_of(folder, settings=(), algorithm="ppo"):
    sets = [a for s in [*SHORT, *settings, f"output_dir={folder}"] for a in ("--set", s)]
    return ["--plugin", algorithm, *sets]


def start(ranks, folder, settings=(), algorithm="ppo", **environment):
    return subprocess.Popen(command(ranks, *arguments_of(folder, settings, algorithm)), env={**os.environ, **environment},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="backslashreplace")


def run(ranks, folder, settings=(), algorithm="ppo", expect=0, **environment):
    process = start(ranks, folder, settings, algorithm, **environment)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == expect, f"{ranks} ranks: exit {process.returncode}, expected {expect}:\n{output[-3000:]}"
    return output


def lines_of(folder):
    return [json.loads(line) for name in ("metrics", "eval") for file in sorted(folder.glob(f"*/{name}.jsonl"))
            for line in file.read_text().splitlines()]


def expect_close(folder, whole, what, tolerance=1e-5):
    """Each number of each line within the tolerance, as a share of it or of 1: so near do sums come in another order. Norms
    of gradients within ten times as much: AdamW's first steps are as large where a gradient is rounding alone."""
    ours, theirs = lines_of(folder), lines_of(whole)
    assert len(ours) == len(theirs) > 0, f"{what}: {len(ours)} lines beside {len(theirs)}"
    for a, b in zip(ours, theirs):
        assert a.keys() == b.keys(), f"{what}: {a.keys() ^ b.keys()}"
        for key, x in a.items():
            y = b[key]
            if key.startswith(OWN):
                continue
            if isinstance(x, float) and isinstance(y, float):
                near = tolerance * (10 if "grad_norm" in key else 1)
                assert abs(x - y) <= near * max(1, abs(y)), f"{what}: {a['stage']} step {a['step']}: {key} {x} beside {y}"
            elif key != "samples":
                assert x == y, f"{what}: {a['stage']} step {a['step']}: {key} {x} beside {y}"
    models = [sorted(str(p.relative_to(f)) for p in f.glob("*/*/model.safetensors")) for f in (folder, whole)]
    assert models[0] == models[1], f"{what}: {models}"
    left = [str(p) for p in folder.rglob("*") if ".tmp" in p.name or p.name.endswith(".old")]
    assert not left, f"{what}: left behind: {left}"


def answers(folder):
    rows = json.loads((folder / "step-00000000.json").read_text())
    return [(row["prompt_ids"], row["output_ids"], row["finish"]) for row in rows]


def rows_as_one(scratch):
    one = scratch / "one"
    run(1, one, [f"stage.ppo.rollout.record={scratch}/answers-1"])
    for ranks in (2, 3):
        folder = scratch / f"of-{ranks}"
        # Later steps answer as the first ones did: an answer may turn where two tokens are as likely.
        run(ranks, folder, [f"stage.ppo.rollout.replay={scratch}/answers-1"])
        expect_close(folder, one, f"{ranks} ranks")
        recorded = scratch / f"answers-{ranks}"
        run(ranks, scratch / f"recorded-{ranks}", ["stage.ppo.max_steps=1", f"stage.ppo.rollout.record={recorded}"])
        assert answers(recorded) == answers(scratch / "answers-1"), f"{ranks} ranks answer otherwise"
        log = (folder / "log.txt").read_text()
        assert f"ranks size={ranks} threads=1 on_this_machine={ranks}" in log, log[:600]
    print("2 and 3 ranks: the answers of one, token for token; metrics and evaluations within 1e-5")


# What beside the default: the settings of each pair of ways once.
WAYS = {
    "grpo, groups": ("grpo", ["stage.ppo.rollout.samples_per_prompt=4", "stage.ppo.rollout.batch_size=4"]),
    "dpo, zero 1": ("dpo", ["zero_stage=1"]),
    "adapter, recompute, zero 2": ("ppo", ["stage.ppo.actor.lora.rank=4", "recompute=true", "zero_stage=2"]),
    "average, mixture, zero 2": ("ppo", ["zero_stage=2", "ema_decay=0.8", "stage.ppo.ptx.coefficient=0.5",
                                 'stage.ppo.ptx.sources=[{path="examples/tiny/data/sft.jsonl"}]']),
    "micro-batches, offload, zero 2": ("ppo", ["zero_stage=2", "micro_batch_size=2", "offload.moments=true", "offload.gradients=true"]),
    "8-bit moments, zero 1": ("ppo", ["moments=8bit", "zero_stage=1"]),  # which turn where a number lies between two codes
    "rloo, epochs": ("rloo", ["stage.ppo.rollout.samples_per_prompt=2", "stage.ppo.ppo_epochs=2"]),
    "fewer rows than ranks, zero 2": ("ppo", ["zero_stage=2", "stage.ppo.rollout.batch_size=2", "stage.ppo.mini_batch_size=2", "stage.sft.mini_batch_size=1"]),
}


def ways_as_one(scratch):
    os.chdir(pathlib.Path(__file__).resolve().parent.parent.parent)
    for index, (name, (algorithm, settings)) in enumerate(WAYS.items()):
        folder, recorded = scratch / f"way-{index}", scratch / f"way-{index}-answers"
        rollouts = algorithm != "dpo"
        run(1, folder / "one", [*settings, *([f"stage.ppo.rollout.record={recorded}"] if rollouts else [])], algorithm)
        for ranks in (2, 4) if FULL else (4 if name.startswith("fewer") else 2,):
            run(ranks, folder / str(ranks), [*settings, *([f"stage.ppo.rollout.replay={recorded}"] if rollouts else [])], algorithm)
            assert (folder / str(ranks) / algorithm / "done.json").exists(), f"{name}: no stage {algorithm}"
            expect_close(folder / str(ranks), folder / "one", f"{name} on {ranks} ranks", 5e-3 if "8-bit" in name else 1e-5)
        shutil.rmtree(folder)
    print(f"{len(WAYS)} ways of training: as on one rank")


def children(process):
    """The ranks that mpirun started, in the order of their numbers."""
    found = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            environment = dict(e.split(b"=", 1) for e in (entry / "environ").read_bytes().split(b"\0") if b"=" in e)
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            continue
        if parent == process.pid and b"OMPI_COMM_WORLD_RANK" in environment:
            found[int(environment[b"OMPI_COMM_WORLD_RANK"])] = int(entry.name)
    return [found[r] for r in sorted(found)]


def is_alive(pid):
    try:
        return "Z" not in pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1]
    except OSError:
        return False


def wait_for(process, log, text, seconds=120):
    end = time.time() + seconds
    while time.time() < end and process.poll() is None:
        if log.exists() and text in log.read_text(errors="replace"):
            return
        time.sleep(0.02)
    raise AssertionError(f"{log} never said {text!r}; exit {process.poll()}")


def lost_ranks(scratch):
    settings = ["collective_timeout=4", "stage.ppo.checkpoint_every=1", "stage.ppo.max_steps=4"]
    whole = scratch / "whole"
    run(2, whole, settings)
    settings.append("zero_stage=1")  # which changes no bit
    # When: a line of the log after which the rank is lost.
    for index, (sign, rank, when) in enumerate([
            (signal.SIGKILL, 1, "stage name=sft"), (signal.SIGKILL, 0, "stage name=ppo"), (signal.SIGKILL, 1, "progress name=ppo step=2"),
            (signal.SIGSTOP, 1, "stage name=reward"), (signal.SIGSTOP, 0, "progress name=ppo step=1")]):
        folder = scratch / f"lost-{index}"
        process = start(2, folder, [*settings, "log_every=1"])
        wait_for(process, folder / "log.txt", when)
        pids = children(process)
        began = time.time()
        os.kill(pids[rank], sign)
        output = process.communicate(timeout=60)[0]
        seconds = time.time() - began
        what = f"{sign.name} of rank {rank} at {when!r}"
        assert process.returncode != 0, what
        if sign == signal.SIGKILL:
            assert f"rank {rank} with PID" in output, f"{what}: not named:\n{output[-2000:]}"
        else:
            errors = [line for line in output.splitlines() if line.startswith("dsengine: error: ")]
            assert len(errors) == 1 and f"rank {rank}: did not come within" in errors[0], f"{what}: {output[-2000:]}"
        end = time.time() + 10
        while any(is_alive(pid) for pid in pids) and time.time() < end:
            time.sleep(0.05)
        assert not any(is_alive(pid) for pid in pids), f"{what}: ranks live on: {pids}"
        run(2, folder, settings)
        expect_close(folder, whole, what, tolerance=0)
        print(f"{what}: noticed in {seconds:.1f} s, gone on with to the same numbers")


def errors_are_told_once(scratch):
    for ranks, settings, text in ((2, ["stage.ppo.rollout.batch_sise=3"], "batch_sise"),
                                  (2, ["model.actor=nowhere"], "nowhere"),
                                  (3, ["stage.sft.data.sources=[{path=\"/nowhere.jsonl\"}]"], "/nowhere.jsonl")):
        output = run(ranks, scratch / "error", settings, expect=1)
        errors = [line for line in output.splitlines() if line.startswith("dsengine: ")]
        assert len(errors) == 1 and text in errors[0], f"{settings}: {errors}"
    # Of one rank: each has a working directory of its own name, and one of them has no such file.
    wrapped = subprocess.run([MPIRUN, "-n", "3", "--oversubscribe", "--allow-run-as-root", "sh", "-c",
                              'exec "$0" "$@" --set stage.sft.data.max_length=$((128 + OMPI_COMM_WORLD_RANK / 2))', str(BINARY),
                              *arguments_of(scratch / "error")], capture_output=True, text=True, timeout=120)
    errors = [line for line in wrapped.stderr.splitlines() if line.startswith("dsengine: ")]
    assert wrapped.returncode == 1 and len(errors) == 1, wrapped.stderr[-2000:]
    assert "rank 2 has other settings than rank 0" in errors[0], errors
    refused = subprocess.run(command(2, "tokenize", "--model", "x", "--input", "x", "--output", "x"), capture_output=True, text=True)
    errors = [line for line in refused.stderr.splitlines() if line.startswith("dsengine: ")]
    assert refused.returncode == 1 and len(errors) == 1 and "start it without mpirun" in errors[0], refused.stderr[-1000:]
    torchrun = subprocess.run([str(BINARY), *arguments_of(scratch / "error")], capture_output=True, text=True,
                              env={**os.environ, "RANK": "1", "WORLD_SIZE": "2"})
    assert torchrun.returncode == 1 and "mpirun -n 2" in torchrun.stderr, torchrun.stderr[-1000:]
    print("errors: told once")


def other_numbers_of_ranks(scratch):
    recorded, settings = scratch / "turns", ["stage.ppo.checkpoint_every=1"]
    whole, folder = scratch / "turns-one", scratch / "turns-many"
    run(1, whole, [*settings, "stage.ppo.max_steps=6", f"stage.ppo.rollout.record={recorded}", "schedule=constant"])
    for ranks, steps, zero in ((2, 2, 2), (4, 4, 1), (1, 6, 0)):
        output = run(ranks, folder, [*settings, f"zero_stage={zero}", f"stage.ppo.max_steps={steps}", f"stage.ppo.rollout.replay={recorded}", "schedule=constant"])
        assert ranks == 2 or "world_size=" in output, output[-2000:]
    ours, theirs = ([r for r in lines_of(f) if "loss" in r] for f in (folder, whole))
    assert len(ours) == len(theirs), (len(ours), len(theirs))
    for a, b in zip(ours, theirs):
        assert abs(a["loss"] - b["loss"]) <= 1e-5 * max(1, abs(b["loss"])), (a, b)
    print("2, 4 and 1 ranks in turn, with zero_stage 2, 1 and 0: the losses of one rank throughout")


def told_to_end(scratch):
    folder, whole = scratch / "ended", scratch / "whole"
    settings = ["collective_timeout=4", "stage.ppo.checkpoint_every=1", "stage.ppo.max_steps=4"]
    process = start(2, folder, [*settings, "log_every=1"])
    wait_for(process, folder / "log.txt", "progress name=reward step=1")
    process.send_signal(signal.SIGUSR1)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 128 + signal.SIGUSR1, output[-1000:]
    assert "stopped " in (folder / "log.txt").read_text(), output[-2000:]
    run(2, folder, settings)
    expect_close(folder, whole, "a run that was told to end", tolerance=0)
    print("SIGUSR1: a checkpoint, and gone on with")


def launched(scratch):
    whole = scratch / "whole"
    settings = ["collective_timeout=4", "stage.ppo.checkpoint_every=1", "stage.ppo.max_steps=4", "log_every=1"]

    def launch(folder, *options):
        return subprocess.Popen([str(BINARY), "launch", "--nproc", "2", *options, *arguments_of(folder, settings)], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="backslashreplace")
    # A rank is killed: told by its number and its last lines, and gone on with.
    folder = scratch / "launched"
    process = launch(folder, "--max-restarts", "1")
    wait_for(process, folder / "log.txt", "progress name=reward step=1")
    mpirun = next(int(p.parent.name) for p in pathlib.Path("/proc").glob("[0-9]*/stat")
                  if p.read_text().rsplit(")", 1)[1].split()[1] == str(process.pid))
    os.kill(children(type("Mpirun", (), {"pid": mpirun}))[1], signal.SIGKILL)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output[-2000:]
    assert "launch event=failed rank=1 how=\"signal 9" in output and "launch event=restart number=1 of=1" in output, output[-3000:]
    assert "\n[0] " in output, output[:500]
    expect_close(folder, whole, "a run that was restarted", tolerance=0)
    # Told to end: saved, exit status as shells count.
    folder = scratch / "launched-ended"
    process = launch(folder)
    wait_for(process, folder / "log.txt", "progress name=sft step=1")
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 143 and "stopped " in (folder / "log.txt").read_text(), output[-2000:]
    process = launch(folder)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output[-2000:]
    expect_close(folder, whole, "a launched run that was told to end", tolerance=0)
    print("launch: a killed rank is named and the run restarted; a wish to stop is handed on")


with tempfile.TemporaryDirectory() as scratch:
    for test in (rows_as_one, ways_as_one, errors_are_told_once, lost_ranks, told_to_end, launched, other_numbers_of_ranks):
        test(pathlib.Path(scratch))
