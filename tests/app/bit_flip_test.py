"""A bit that changes on the disk is noticed, or changes nothing: bit_flip_test.py BINARY FAIL_CALL [SLOTS]

A short run of three stages is left in several states: after its first stage, after its second, within its last with two
checkpoints, and ended. One bit of one file of the run, or of the inputs of the stage that it is within, is turned, and
the same command is given again. Each time:

- the exit status is 1 with one error line that names the file, or
- the exit status is 0, and the final weights and all later metrics and evaluations are those of the undisturbed run.

The same where a whole file is put in another's place: of one step into another, of one stage into the next. Each file
of each state is tried in one place; with DSENGINE_FULL=1 in the environment in 48.
"""
import collections
import errno
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

from short_run import STAGES, Slot, error_of, side_by_side

BINARY = pathlib.Path(sys.argv[1]).resolve()
SHIM = pathlib.Path(sys.argv[2]).resolve()
SLOTS = int(sys.argv[3]) if len(sys.argv) > 3 else 2
FULL = os.environ.get("DSENGINE_FULL") == "1"
PLACES = 48 if FULL else 1
# Where the states end: the call that fails there, and the last step whose metrics are then behind the run.
STATES = {"after sft": ("mkdir", "run/reward", ("reward", -1)), "after reward": ("mkdir", "run/ppo", ("ppo", -1)),
          "within ppo": ("write", "run/ppo/metrics.jsonl", ("ppo", 2)), "ended": (None, None, ("ppo", 3))}


def make_states(slot):
    """Leaves the slot with the state of each name kept, and returns the undisturbed run's results."""
    log = slot.folder / "calls"
    fault = {"LD_PRELOAD": str(SHIM), "DSE_FAULT_ROOT": str(slot.folder), "DSE_FAULT_LOG": str(log)}
    slot.start()
    assert slot.run(**fault).returncode == 0
    slot.keep("ended")
    models = slot.models()
    calls = log.read_text().splitlines()
    for name, (operation, path, _) in STATES.items():
        if not operation:
            continue
        met = [i for i, call in enumerate(calls) if call == f"{operation} {slot.folder}/{path}"]
        number = met[-1 if operation == "write" else 0] + 1  # the last line of ppo's metrics is of its last step
        slot.start()
        stopped = slot.run(**fault, DSE_FAULT_CALL=str(number), DSE_FAULT_ERRNO=str(errno.EIO))
        assert stopped.returncode == 1, stopped.stderr
        slot.keep(name)
    return models


def cases_of(slot):
    """(state, file relative to the slot, byte, bit) for each place to be tried; byte None: the other file's content."""
    draws = random.Random(11)
    cases = []
    for state in STATES:
        base = slot.folder / "kept" / state
        files = sorted(p for p in base.glob("**/*") if p.is_file() and (state == "within ppo" or (base / "run") in p.parents))
        for file in files:
            size = file.stat().st_size
            if size == 0:
                continue
            places = sorted({draws.randrange(size) for _ in range(PLACES)})
            name = "events.*" if "tfevents" in file.name else file.name  # a time and a process are in it
            cases += [(state, str(file.relative_to(base).with_name(name)), at, draws.randrange(8)) for at in places]
    swaps = [("within ppo", "run/ppo/checkpoints/step-00000002/actor.safetensors", "run/ppo/checkpoints/step-00000001/actor.safetensors"),
             ("within ppo", "run/ppo/checkpoints/step-00000002/manifest.json", "run/ppo/checkpoints/step-00000001/manifest.json"),
             ("within ppo", "run/ppo/checkpoints/step-00000002/critic.safetensors", "run/ppo/checkpoints/step-00000001/critic.safetensors"),
             ("after sft", "run/sft/model/model.safetensors", "inputs/model/model.safetensors"),
             ("after reward", "run/sft/model/model.safetensors", "inputs/model/model.safetensors"),
             ("after reward", "run/sft/done.json", "run/reward/done.json"),
             ("ended", "run/ppo/model/model.safetensors", "run/sft/model/model.safetensors"),
             ("within ppo", "inputs/prompts.jsonl", "inputs/sft.jsonl"),
             ("within ppo", "inputs/model/model.safetensors", "run/sft/model/model.safetensors")]
    return cases + [(state, file, None, other) for state, file, other in swaps]


def later_rows(slot, state):
    return slot.rows(after=STATES[state][2])


def trial(slot, whole, case):
    """Returns (what is wrong or None, noticed or harmless)."""
    state, name, at, what = case
    slot.start(state)
    file = next(slot.folder.glob(name))
    content = bytearray(file.read_bytes())
    if at is None:
        content = (slot.folder / what).read_bytes()
    else:
        content[at % len(content)] ^= 1 << what  # lines with times differ in length
    file.write_bytes(content)
    done = slot.run()
    try:
        if done.returncode != 0:
            line = error_of(done)
            assert str(file.parent) in line and file.name in line, f"the line does not name {name}: {line}"
            return None, "noticed"
        models = slot.models()
        differs = [n for n in {*models, *whole["models"]} if models.get(n) != whole["models"].get(n)]
        assert not differs, f"passed over, and {sorted(differs)} differ from the undisturbed run's"
        rows, undisturbed = later_rows(slot, state), whole[state]
        assert rows == undisturbed, "passed over, and later metrics differ from the undisturbed run's"
        return None, "harmless"
    except AssertionError as e:
        where = f"byte {at}, bit {what}" if at is not None else f"replaced by {what}"
        print(f"FAILED {state}: {name}, {where}: {e}\n  {done.stderr[-300:] if done.returncode else ''}", flush=True)
        return str(e), "wrong"


def main():
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        slots = [Slot(BINARY, pathlib.Path(scratch).resolve() / f"slot{i}") for i in range(SLOTS)]
        wholes = {}
        for slot in slots:
            wholes[slot] = {"models": make_states(slot)}
            for state in STATES:
                slot.start("ended")
                wholes[slot][state] = later_rows(slot, state)
            for state in STATES:  # undisturbed, each goes on to the same end
                slot.start(state)
                done = slot.run()
                assert done.returncode == 0, f"{state}: {done.stderr[-800:]}"
                assert slot.models() == wholes[slot]["models"] and later_rows(slot, state) == wholes[slot][state], state
        cases = cases_of(slots[0])
        results = side_by_side(slots, lambda slot, case: trial(slot, wholes[slot], case), cases)
    met = collections.Counter((case[0], kind) for case, (_, kind) in zip(cases, results))
    print("; ".join(f"{state}: {count} {kind}" for (state, kind), count in sorted(met.items())))
    failures = sum(bool(wrong) for wrong, _ in results)
    print(f"{len(cases)} changes, {failures} wrong, {time.monotonic() - started:.0f} s")
    assert any(kind == "noticed" for _, kind in results) and any(kind == "harmless" for _, kind in results)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
