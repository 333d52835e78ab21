"""Calls to the file system that fail lose nothing: fault_test.py BINARY FAIL_CALL [SLOTS [EVERY [FIRST]]]

A short run of three stages is repeated with its n-th call that names a file of the run or of its inputs made to fail
(open, read, map, stat, list, write, sync, cut, rename, mkdir, close, remove), alone or with every later one that
writes (a full disk). The same is done with a run that goes on from a checkpoint. Each time:

- the exit status is 1 with one error line that names a file of the run, or 0 where that call decides nothing, and
  then the results are those of an undisturbed run;
- every directory and checkpoint that is there is whole, and the progress is no less than with an earlier call;
- the same command without the fault comes to the same weights and metrics, bit for bit, and leaves nothing behind.

Every tenth call that reads, writes, syncs, renames or makes something is tried, every hundredth of the others (of the
run that goes on a quarter of that); with DSENGINE_FULL=1 in the environment each one. FIRST passes over that many of them.
"""
import collections
import errno
import os
import pathlib
import sys
import tempfile
import time

from short_run import Slot, error_of, side_by_side

BINARY, SHIM = (pathlib.Path(p).resolve() for p in sys.argv[1:3])
SLOTS = int(sys.argv[3]) if len(sys.argv) > 3 else 2
FULL = os.environ.get("DSENGINE_FULL") == "1"
EVERY = int(sys.argv[4]) if len(sys.argv) > 4 else 1 if FULL else 10
FIRST = int(sys.argv[5]) if len(sys.argv) > 5 else 0
MANY = ("open", "stat", "list", "close", "remove")  # tried less often
# Operations that may fail while the run goes on, where its results are the same: what was closed or removed is no
# longer needed, leftovers that cannot be listed stay for the next start, a log is a copy of what standard error shows, and
# a folder that is there already need not be made.
MAY_GO_ON = ("close", "remove", "list", "mkdir")
# The lock's text is for who reads "in use by process …"; the log's library looks for the folder that it is to lie in.
NO_RESULTS = ("/log.txt", "cut run/lock", "stat run")


def calls_of(slot, snapshot):
    """Every call of a run from there, in order: "operation path"."""
    log = slot.folder / "calls"
    log.unlink(missing_ok=True)
    slot.start(snapshot)
    done = slot.run(LD_PRELOAD=str(SHIM), DSE_FAULT_ROOT=str(slot.folder), DSE_FAULT_LOG=str(log))
    assert done.returncode == 0, done.stderr
    return log.read_text().splitlines()


def disturbed(slot, snapshot, number, error, lasting):
    """The run whose call of that number fails, and that call."""
    log = slot.folder / "failed"
    log.unlink(missing_ok=True)
    slot.start(snapshot)
    lasts = {"DSE_FAULT_LASTING": "1"} if lasting else {}
    done = slot.run(LD_PRELOAD=str(SHIM), DSE_FAULT_ROOT=str(slot.folder), DSE_FAULT_LOG=str(log), DSE_FAULT_CALL=str(number),
                    DSE_FAULT_ERRNO=str(error), **lasts)
    return done, log.read_text().splitlines()[0] if log.exists() else None


def expect_whole(slot, whole):
    """What is there is as in the undisturbed run: finished directories, and weights of checkpoints."""
    for name, content in slot.models().items():
        assert whole["models"].get(name) == content, f"{name} is not the undisturbed run's"
    there = {pathlib.Path(name).parent for name in slot.models()}
    for name in whole["models"]:
        assert pathlib.Path(name).parent not in there or name in slot.models(), f"{name} is missing"
    for name, content in slot.checkpoints().items():
        assert whole["every_checkpoint"].get(name) == content, f"{name} is not the undisturbed run's"
    for folder in slot.output.glob("*/checkpoints/step-*"):
        assert (folder / "manifest.json").exists(), f"{folder} has no manifest"


def expect_equal(slot, whole, one_more=False):
    """The results of the undisturbed run; with one_more an older checkpoint may be there too."""
    for kind in ("models", "rows", "checkpoints"):
        now = getattr(slot, kind)()
        if one_more and kind == "checkpoints":
            now = {name: content for name, content in now.items() if name in whole[kind]}
        differs = [name for name in {*now, *whole[kind]} if now.get(name) != whole[kind].get(name)]
        assert not differs, f"{kind} differ from the undisturbed run's: {sorted(differs)}"
    left = [str(p) for p in slot.folder.glob("run/**/*") if ".tmp" in p.name or p.name.endswith(".old")]
    assert not left, f"left behind: {left}"


def trial(slot, whole, snapshot, number, error, lasting):
    """Returns (what is wrong or None, the call, exit status, progress)."""
    done, call = disturbed(slot, snapshot, number, error, lasting)
    progress, wrong = slot.progress(), None
    try:
        if done.returncode == 0:
            operation, path = call.split(" ", 1) if call else ("none", "")
            one_more = "checkpoint_not_removed" in done.stderr
            assert operation in (*MAY_GO_ON, "none") or f"{operation} {path.removeprefix(str(slot.folder) + '/')}".endswith(NO_RESULTS) or one_more, "the failure was passed over"
            expect_equal(slot, whole, one_more)
        else:
            assert str(slot.folder) in error_of(done), f"the line names no file of the run: {error_of(done)}"
            expect_whole(slot, whole)
            again = slot.run()
            assert again.returncode == 0, f"it does not go on: {again.stderr[-600:]}"
            expect_equal(slot, whole)
    except AssertionError as e:
        wrong = str(e)
        print(f"FAILED from {snapshot}, call {number} ({call}), {errno.errorcode[error]}{' and later ones' if lasting else ''}: {wrong}\n"
              f"  {done.stderr[-500:]}", flush=True)
    return wrong, call, done.returncode, progress


def main():
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        slots = [Slot(BINARY, pathlib.Path(scratch).resolve() / f"slot{i}") for i in range(SLOTS)]
        counts, wholes = {}, {}
        for slot in slots:
            slot.start()
            assert slot.run("--set", "keep_checkpoints=9").returncode == 0
            every_checkpoint = slot.checkpoints()
            slot.start()
            assert slot.run().returncode == 0
            wholes[slot] = {kind: getattr(slot, kind)() for kind in ("models", "rows", "checkpoints")}
            wholes[slot]["every_checkpoint"] = every_checkpoint
            calls = calls_of(slot, "none")
            expect_equal(slot, wholes[slot])
            counts["none"] = calls
            # A run that stopped in the last stage after a checkpoint: where it writes the next line of metrics.
            saved = next(i for i, call in enumerate(calls) if call.startswith("rename ") and "ppo/checkpoints/step-00000001" in call)
            next_line = next(i for i in range(saved, len(calls)) if calls[i].startswith("write ") and calls[i].endswith("ppo/metrics.jsonl"))
            done, _ = disturbed(slot, "none", next_line + 1, errno.EIO, False)
            assert slot.progress() == (2, "step-00000001"), (slot.progress(), done.stderr)
            slot.keep("stopped")
            counts["stopped"] = calls_of(slot, "stopped")

        cases = []
        for snapshot, calls in counts.items():
            every = EVERY if FULL or snapshot == "none" else 4 * EVERY
            of_kind = [[n for n, call in enumerate(calls, 1) if (call.split(" ")[0] in MANY) == many] for many in (False, True)]
            numbers = range(1, len(calls) + 1) if EVERY == 1 else sorted(of_kind[0][::every] + of_kind[1][::10 * every])
            for turn, number in enumerate(numbers):
                lasting = turn % 2 == 1
                cases.append((snapshot, number, errno.ENOSPC if lasting or turn % 4 == 0 else errno.EIO, lasting))
        cases = cases[FIRST:]
        results = side_by_side(slots, lambda slot, case: trial(slot, wholes[slot], *case), cases)

    failures, met, furthest = 0, collections.Counter(), {}
    for (snapshot, number, error, lasting), (wrong, call, status, progress) in zip(cases, results):
        met[(call or "none").split(" ")[0], status] += 1
        if not wrong and status == 1 and progress < furthest.get((snapshot, lasting), (0, "")):
            wrong = f"progress {progress}, an earlier call's failure left {furthest[snapshot, lasting]}"
            print(f"FAILED from {snapshot}, call {number} ({call}): {wrong}")
        if status == 1:
            furthest[snapshot, lasting] = max(progress, furthest.get((snapshot, lasting), (0, "")))
        failures += bool(wrong)
    print("; ".join(f"{operation}: {count} with exit {status}" for (operation, status), count in sorted(met.items())))
    print(f"{len(cases)} of {sum(map(len, counts.values()))} calls failed in turn, {failures} wrong, {time.monotonic() - started:.0f} s")
    assert all(met[operation, 1] > 0 for operation in ("open", "read", "write", "sync", "rename")), "operations that none met"
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
