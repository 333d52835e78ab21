"""Rewards and plugins that misbehave, and the run around them: rewards_test.py BINARY BUILD_DIR

A killed engine leaves no reward program behind; a stop does not wait for a slow reward, and the run that goes on equals
the uninterrupted one bit for bit; a reward in the process that never returns ends the run with its finished steps saved;
infinite scores are dropped; a library that changes the floating-point state changes no bit of the weights; libraries
that end or hold up whoever opens them hinder no command that does not ask for them.
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

BINARY, ABI = str(pathlib.Path(sys.argv[1]).resolve()), pathlib.Path(sys.argv[2]).resolve() / "tests/abi"
TINY = pathlib.Path(__file__).resolve().parent.parent.parent / "examples/tiny"
TIMES = ("seconds", "tokens_per_second", "memory_", "peak_memory_mb", "wall_time")
CONFIG = """
threads = 1
tensorboard = false
[model]
actor = "{tiny}/model"
init = "random"
[[stage]]
name = "ppo"
algorithm = "ppo"
max_steps = 4
mini_batch_size = 4
learning_rate = 1e-3
eval_every = 2
eval_rows = 3
checkpoint_every = 100
rollout = {{ batch_size = 4, max_response_length = 6 }}
reward = {{ plugin = "{reward}"{options} }}
data.sources = [{{ path = "{tiny}/data/prompts.jsonl" }}]
data.heldout = [{{ path = "{tiny}/data/prompts_heldout.jsonl" }}]
"""
# Scores by the reply alone. Notes its id and a child's, both deaf to SIGTERM and the end of input; is as slow as a file says.
PROGRAM = """
import json, os, pathlib, signal, subprocess, sys, time
folder = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, signal.SIG_IGN)
busy = "import signal\\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\\nwhile True: pass" if (folder / "busy").exists() else "input()"
child = subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
while True:
    line = sys.stdin.readline()
    if not line:
        while True: pass
    (folder / "pids").write_text(f"{os.getpid()} {child.pid}")
    asked = json.loads(line)
    with open(folder / "asked", "a") as out: print(asked["id"], file=out, flush=True)
    while (folder / "busy").exists(): pass
    slow_from = int((folder / "slow_from").read_text()) if (folder / "slow_from").exists() else 10**9
    time.sleep(1.5 if asked["id"] >= slow_from else 0)
    print(json.dumps({"id": asked["id"], "score": len(asked["reply"]) % 5}), flush=True)
"""
scratch = None
cases = 0


def fixture(name):
    return ABI / f"libdse_{name}.so"


def start(folder, reward, options="", plugins=(), arguments=(), **environment):
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = folder.parent / f"{folder.name}.toml"
    config.write_text(CONFIG.format(tiny=TINY, reward=reward, options=options))
    command = [BINARY, "run", "--config", str(config), "--set", f"output_dir={folder}", *arguments]
    files = ", ".join(f'{{file="{p}"}}' for p in plugins)
    if files: command += ["--set", f"plugins=[{files}]"]
    return subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end(process, expect, timeout=120):
    output = process.communicate(timeout=timeout)[0]
    assert process.returncode in expect, f"exit {process.returncode}, expected {expect}:\n{output[-3000:]}"
    return output


def run(folder, *args, expect=(0,), **kw):
    return end(start(folder, *args, **kw), expect)


def metrics(folder):
    rows = []
    for file in ("metrics.jsonl", "eval.jsonl"):
        rows.append([{k: v for k, v in json.loads(l).items() if not k.startswith(TIMES)} for l in (folder / "ppo" / file).read_text().splitlines()])
    return rows


def expect_equal(a, b, what):
    for name in ("model", "critic"):
        x, y = ((f / "ppo" / name / "model.safetensors").read_bytes() for f in (a, b))
        assert x == y, f"{what}: {name} differs"
    assert metrics(a) == metrics(b), f"{what}: metrics differ:\n{metrics(a)}\n{metrics(b)}"


def told(what):
    global cases
    cases += 1
    print(what, flush=True)


def checkpoints(folder):
    return sorted(p.name for p in (folder / "ppo/checkpoints").glob("step-*"))


def wait_for(condition, what, process=None, seconds=60):
    until = time.time() + seconds
    while not condition():
        assert time.time() < until, f"waited {seconds} s: {what}"
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def asked(place):
    return len((place / "asked").read_text().splitlines()) if (place / "asked").exists() else 0


def programs():
    def place_of(name):
        place = scratch / name
        place.mkdir()
        return place, f', command = "exec {sys.executable} {program} {place}"'

    program = scratch / "judge.py"
    program.write_text(PROGRAM)
    # The settings of a run hold the command: each run has the same, and links it to a place of its own.
    here = scratch / "here"
    here.mkdir()
    options = f', command = "exec {sys.executable} {program} {here}"'

    for signals, name in (([signal.SIGKILL], "SIGKILL"), ([signal.SIGTERM, signal.SIGTERM], "SIGTERM")):
        place, own = place_of(f"busy-{name}")
        (place / "busy").touch()
        process = start(scratch / f"killed-{name}", "process", own)
        wait_for(lambda: asked(place) > 0, "the program is asked", process)
        pids = (place / "pids").read_text().split()
        assert all(map(alive, pids)), pids
        for s in signals: process.send_signal(s)
        process.communicate(timeout=30)
        wait_for(lambda: not any(map(alive, pids)), f"{name}: the reward program and its child end with the engine", seconds=10)
        told(f"{name}: nothing of a busy reward program is left")

    whole = scratch / "whole"
    run(whole, "process", options)
    rows, evaluations = metrics(whole)
    assert len(rows) == 4 and len(evaluations) == 3 and all(r["reward_failed"] == 0 for r in rows), rows
    assert len({r["reward"] for r in rows}) > 1, rows
    # Evaluations ask 6 times, steps 4 times: 1-6, 7-10, 11-14, 15-20 (evaluation), 21-24, 25-28, 29-34 (evaluation).
    for at, what in ((2, "the evaluation at 0"), (8, "the first step"), (12, "the second step"), (16, "an evaluation"),
                     (22, "the third step"), (30, "the last evaluation")):
        for file in here.iterdir(): file.unlink()
        (here / "slow_from").write_text(str(at))
        folder = scratch / f"stopped-{at}"
        process = start(folder, "process", options)
        wait_for(lambda: asked(here) >= at, f"question {at}", process)
        begun = time.time()
        process.send_signal(signal.SIGTERM)
        output = end(process, (143,), timeout=30)
        took = time.time() - begun
        assert took < 8, f"{what}: stopped after {took:.1f} s\n{output}"
        assert not (folder / "ppo/done.json").exists(), output
        assert "within the deadline" not in output and "warning reward" not in output, output
        (here / "slow_from").unlink()
        run(folder, "process", options)
        expect_equal(folder, whole, what)
        told(f"SIGTERM while the reward is asked in {what}: {took:.1f} s, and the run that went on is equal")


def in_the_process():
    never = [fixture("never_returns")]
    whole = scratch / "whole-odd"
    run(whole, "never_returns", ", deadline = 2", plugins=never, DSE_ODD_ANSWERS="1000")
    folder = scratch / "deadline"
    # Evaluation at 0: 6 answers; two steps: 8; evaluation at 2: 6; the third step is never scored.
    output = run(folder, "never_returns", ", deadline = 2", plugins=never, expect=(1,), DSE_ODD_ANSWERS="21")
    error = output.splitlines()[-1]
    assert error.startswith("dsengine: error: reward 'never_returns'") and "deadline of 2 s" in error, output
    assert checkpoints(folder) == ["step-00000002"], checkpoints(folder)
    output = run(folder, "never_returns", ", deadline = 2", plugins=never, DSE_ODD_ANSWERS="1000")
    assert "resume stage=ppo step=2" in output, output
    expect_equal(folder, whole, "a deadline")
    told("a reward that never returns: the run saved its finished steps, named it, and went on equal")
    folder = scratch / "deadline-eval"
    run(folder, "never_returns", ", deadline = 2", plugins=never, expect=(1,), DSE_ODD_ANSWERS="16")
    assert checkpoints(folder) == ["step-00000002"], checkpoints(folder)
    run(folder, "never_returns", ", deadline = 2", plugins=never, DSE_ODD_ANSWERS="1000")
    expect_equal(folder, whole, "a deadline in an evaluation")
    told("the same in an evaluation, which the run that goes on makes up for")
    folder = scratch / "hanging"
    process = start(folder, "never_returns", plugins=never, DSE_ODD_ANSWERS="21")
    wait_for(lambda: (folder / "ppo/eval.jsonl").exists() and len((folder / "ppo/eval.jsonl").read_text().splitlines()) == 2, "evaluation at 2", process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    end(process, (143,), timeout=20)
    assert checkpoints(folder) == ["step-00000002"], checkpoints(folder)
    told("SIGTERM while it never returns: exit 143, finished steps saved")

    folder = scratch / "infinite"
    output = run(folder, "infinite", plugins=[fixture("infinite")])
    rows, evaluations = metrics(folder)
    failed = sum(r["reward_failed"] for r in rows)
    assert failed > 0 and "learning rate" not in output and "reward_failed name=infinite" in output, output
    output = run(scratch / "infinite-all", "always_infinite", plugins=[fixture("always_infinite")], expect=(1,))
    assert "the reward failed on all 4 answers" in output.splitlines()[-1], output
    row = json.loads((scratch / "infinite-all/ppo/eval.jsonl").read_text().splitlines()[0])
    assert row["eval_reward"] is None and row["eval_reward_failed"] == 3, row
    output = run(scratch / "infinite-stop", "infinite", ', on_failure = "stop"', plugins=[fixture("infinite")], expect=(1,))
    assert "reward 'infinite': answer" in output.splitlines()[-1] and "the score is inf" in output.splitlines()[-1], output
    told(f"infinite scores: {failed:.0f} dropped, counted and named")

    plain = scratch / "plain"
    run(plain, "plain", plugins=[fixture("plain")])
    for name in ("flushes_in_score", "flushes_in_threads"):
        run(scratch / name, name, plugins=[fixture(name)])
        expect_equal(scratch / name, plain, name)
    output = run(scratch / "loaded", "plain", plugins=[fixture("plain"), fixture("flushes_on_load")])
    assert "floating_point changed_by=" in output and "libdse_flushes_on_load.so" in output, output
    expect_equal(scratch / "loaded", plain, "flushes_on_load")
    told("libraries that flush to zero change no bit")


def on_the_path():
    bad = scratch / "plugins"
    bad.mkdir()
    for name in ("older_aborts_on_load", "older_exits_on_load", "older_hangs_on_load", "aborts_on_load", "older_plain", "older_loud_on_load"):
        shutil.copy(fixture(name), bad)
    environment = {**os.environ, "XDG_CACHE_HOME": str(scratch / "cache")}

    def command(*arguments, expect=0, stdin=""):
        p = subprocess.run([BINARY, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=120, env=environment)
        assert p.returncode == expect, f"{arguments}: exit {p.returncode}\n{p.stdout}\n{p.stderr}"
        return p

    p = command("plugins", "--plugin-path", bad, "list")
    for part in ("reward     older_plain", "reward     aborts_on_load", "older_aborts_on_load.so: ended the process that opened it by signal 6",
                 "exit status 0", "older_hangs_on_load.so: did not come back"):
        assert part in p.stdout, f"{part}\n{p.stdout}"
    assert "plugin open=" not in p.stderr and "loud" not in p.stdout.splitlines(), p.stderr
    model = str(TINY.parent.parent / "tests/golden/llama_gqa")
    p = command("generate", "--model", model, "--plugin-path", bad, "--max-new-tokens", "2", stdin='{"input_ids": [1, 2, 3]}\n')
    opened = sorted(pathlib.Path(line.split("plugin open=")[1]).name for line in p.stderr.splitlines() if "plugin open=" in line)
    assert "output_ids" in p.stdout and opened == ["libdse_cpu_kernels.so", "libdse_llama.so"], p.stderr
    known = [json.loads(f.read_text()) for f in (scratch / "cache/dsengine/plugins").glob("*.json")]
    assert known.count({"hangs": True}) == 1, f"a library that hung is waited for once: {known}"
    command("plugins", "--plugin-path", bad, "info", "older_plain")
    p = command("plugins", "--plugin-path", bad, "verify", bad / "libdse_aborts_on_load.so", expect=1)
    assert "FAILED loads" in p.stdout and "signal 6" in p.stdout, p.stdout
    p = command("plugins", "--plugin-path", bad, "info", "older_aborts_on_load", expect=1)
    assert p.stderr.count("dsengine: error:") == 1 and "signal 6" in p.stderr, p.stderr
    # One that is asked for, and ends the process: its name is the last that was said.
    p = command("plugins", "--plugin-path", bad, "info", "aborts_on_load", expect=-signal.SIGABRT)
    assert "libdse_aborts_on_load.so" in p.stderr.splitlines()[-1], p.stderr
    output = run(scratch / "path", "older_plain", arguments=["--plugin-path", str(bad)], XDG_CACHE_HOME=str(scratch / "cache"))
    assert "loud" not in output.splitlines(), output
    shadow = scratch / "shadow"
    shadow.mkdir()
    shutil.copy(fixture("plain"), shadow / "libdse_llama.so")
    p = command("plugins", "--plugin-path", shadow, "list")
    assert "hides=" in p.stderr and f"hidden: " in p.stdout, p.stderr
    told("bad libraries on the path hinder no other command; a hidden file is told")


def main():
    global scratch
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        on_the_path()
        in_the_process()
        programs()
    print(f"{cases} cases")


main()
