"""What a run writes of itself can be read, and is documented: metrics_test.py BINARY

One tiny run has a stage of each algorithm that ships. TensorBoard's own reader must find in the event files every number
of metrics.jsonl and eval.jsonl, at its step and time, and nothing else; docs/metrics.md and docs/algorithm_metrics.md
must name every metric that was met, and no other; `dsengine report` must draw each. A second run is killed beyond a
checkpoint, its event file torn, and goes on: each step is there once. Runs in the environment of scripts/setup.
"""
import html.parser
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy
from tensorboard.backend.event_processing import event_accumulator, event_file_loader

BINARY = str(pathlib.Path(sys.argv[1]).resolve())
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TINY = ROOT / "examples/tiny"
ROLLOUTS = ["ppo", "grpo", "rloo", "reinforce++", "gspo"]


def configuration(output_dir):
    data = f'data.sources = [{{ path = "{TINY}/data/%s" }}]\ndata.heldout = [{{ path = "{TINY}/data/%s" }}]\n'
    stage = '[[stage]]\nname = "{0}"\nalgorithm = "{1}"\nmax_steps = 3\neval_every = 2\neval_rows = 4\nmini_batch_size = 8\n'
    pairs = data % ("pairs.jsonl", "pairs_heldout.jsonl")
    text = f'output_dir = "{output_dir}"\nthreads = 1\n[model]\nactor = "{TINY}/model"\ninit = "random"\n'
    text += stage.format("sft", "sft") + f'data.sources = [{{ path = "{TINY}/data/sft.jsonl" }}]\ndata.heldout_fraction = 0.02\n'
    text += stage.format("reward", "reward") + pairs + stage.format("dpo", "dpo") + pairs
    for name in ROLLOUTS:
        text += stage.format(name.replace("+", "p"), name) + data % ("prompts.jsonl", "prompts_heldout.jsonl")
        text += "rollout.batch_size = 4\nrollout.samples_per_prompt = 2\nrollout.max_response_length = 8\nactor = { from = \"sft\" }\n"
        text += "plugin.ppo = { kl_target = 1.0 }\n" if name == "ppo" else ""
        if name == "grpo":  # every service of the engine that has a metric
            text += "rollout.dynamic_sampling = true\nrollout.max_refills = 1\ntarget_kl = 1e-9\nppo_epochs = 2\n"
            text += 'lora = { rank = 4, base = "nf4" }\noffload = { moments = true }\n'
            text += 'rollout.weights = "int8"\nrollout.correction = "truncate"\n'
            text += 'rewards = [{ from = "reward" }, { name = "short", plugin = "overlong", max_length = 8 }]\n'
            text += f'ptx = {{ coefficient = 1.0, sources = [{{ path = "{TINY}/data/sft.jsonl" }}] }}\n'
    return text


def start(folder, *sets):
    config = folder.with_suffix(".toml")
    config.write_text(configuration(folder))
    command = [BINARY, "run", "--config", config] + [a for s in sets for a in ("--set", s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(folder, *sets):
    process = start(folder, *sets)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output[-3000:]


def lines_of(file):
    """The last may be torn."""
    return [json.loads(line) for line in file.read_text().split("\n")[:-1]]


def scalars_in_json(stage):
    """{(tag, step): (value, time)}"""
    found = {}
    for file, group, prefix in (("metrics.jsonl", "train", ""), ("eval.jsonl", "eval", "eval_")):
        for line in lines_of(stage / file):
            for key, value in line.items():
                if key not in ("stage", "step", "samples", "wall_time") and value is not None:
                    at = (f"{group}/{key.removeprefix(prefix)}", line["step"])
                    assert at not in found, f"{stage}/{file}: {at} twice"
                    found[at] = (value, line["wall_time"])
    return found


def expect_same_scalars(stage):
    wanted = scalars_in_json(stage)
    files = list((stage / "tensorboard").iterdir())
    assert len(files) == 1 and "tfevents" in files[0].name, files
    reader = event_accumulator.EventAccumulator(str(stage / "tensorboard"), {event_accumulator.SCALARS: 0}).Reload()
    found = {}
    for tag in reader.Tags()["scalars"]:
        for event in reader.Scalars(tag):
            assert (tag, event.step) not in found, f"{stage}: {tag} at {event.step} twice"
            found[tag, event.step] = (event.value, event.wall_time)
    assert found.keys() == wanted.keys(), f"{stage}: {sorted(found.keys() ^ wanted.keys())}"
    for at, (value, seconds) in wanted.items():
        assert found[at] == (numpy.float32(value).item(), seconds), f"{stage}: {at}: {found[at]}, not {(value, seconds)}"
    assert abs(time.time() - seconds) < 600
    return len(found)


def raw_steps(stage):
    """Of the training records in an event file that may be torn."""
    (file,) = (stage / "tensorboard").iterdir()
    return [e.step for e in event_file_loader.LegacyEventFileLoader(str(file)).Load()
            if e.HasField("summary") and e.summary.value[0].tag.startswith("train/")]


def start_and_kill(folder, sets):
    """The last step that TensorBoard had of the killed stage, and that of its last checkpoint."""
    stage = folder / "sft"
    process = start(folder, *sets)
    while not (stage / "metrics.jsonl").exists() or (stage / "metrics.jsonl").read_text().count("\n") < 13:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)
    process.kill()
    process.communicate()
    checkpoint = max(int(re.search(r"\d+", p.name)[0]) for p in (stage / "checkpoints").iterdir() if p.name[0] != ".")
    return raw_steps(stage)[-1], checkpoint


def killed_and_resumed(scratch):
    sets = ("stage.sft.max_steps=40", "stage.sft.checkpoint_every=10", "stage.reward.max_steps=1", "stage.sft.eval_every=7")
    for attempt in range(5):  # on a busy machine the kill may come late, when there is nothing to cut off
        folder = scratch / f"killed-{attempt}"
        last, checkpoint = start_and_kill(folder, sets)
        if last > checkpoint:
            break
    assert last > checkpoint
    stage = folder / "sft"
    old_times = {line["step"]: line["wall_time"] for line in lines_of(stage / "metrics.jsonl")}
    (old,) = (stage / "tensorboard").iterdir()
    with old.open("ab") as file:
        file.write(b"\x40\0\0\0torn")
    (stage / "tensorboard/.events.out.tfevents.1.tmp-999999999").write_bytes(b"left by a writer that was killed")

    process = start(folder, *sets)
    while not (stage / "done.json").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.terminate()  # the stages after it are of no interest
    process.communicate(timeout=60)
    expect_same_scalars(stage)
    assert raw_steps(stage) == list(range(1, 41))
    times = {line["step"]: line["wall_time"] for line in lines_of(stage / "metrics.jsonl")}
    assert times[checkpoint] == old_times[checkpoint] and times[checkpoint + 1] > old_times[checkpoint + 1]
    print(f"killed at step {last}, resumed from {checkpoint}: steps 1 to 40 once each")


def documented(file):
    """{name: file that it is in}, by the tables' first two cells."""
    names = {}
    for first, second in re.findall(r"^\| (`[^|]+`) \| ([^|]*) \|", (ROOT / "docs" / file).read_text(), re.M):
        names.update({name: second for name in re.findall(r"`([^`]+)`", first)})
    return names


def expect_documented(stages):
    engine, algorithms = documented("metrics.md"), documented("algorithm_metrics.md")
    assert len(engine) > 20 and len(algorithms) > 8 and not engine.keys() & algorithms.keys()
    met = set()
    for stage in stages:
        for file, where in (("metrics.jsonl", "metrics"), ("eval.jsonl", "eval")):
            for key in {k for line in lines_of(stage / file) for k in line} - {"stage", "step", "samples"}:
                assert where == "metrics" or key == "wall_time" or key.startswith("eval_"), f"{stage}/{file}: {key}"
                name = key.removeprefix("eval_") if where == "eval" else key
                if stage.name == "grpo":
                    name = re.sub("reward_(model|short)$", "reward_<name>", name)
                met.add(name)
                assert name in algorithms or engine.get(name) in (where, "both"), f"{stage}/{file}: {key} is not documented there"
                if name in algorithms:
                    algorithm = {"reinforcepp": "reinforce++"}.get(stage.name, stage.name)
                    assert algorithm in algorithms[name].split(", "), f"{name} of {algorithm} is not documented"
    unmet = (engine.keys() | algorithms.keys()) - met
    assert not unmet, f"documented, but not met in any run: {sorted(unmet)}"
    return len(met)


class Figures(html.parser.HTMLParser):
    """{section: names of its metrics}, each of one svg."""

    def __init__(self, text):
        super().__init__()
        self.of, self.section, self.svgs = {}, None, 0
        self.feed(text)
        assert self.svgs == sum(map(len, self.of.values()))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "section":
            self.section = attributes["id"]
        elif tag == "figure":
            self.of.setdefault(self.section, set()).add(attributes["data-metric"])
        elif tag == "svg":
            self.svgs += 1


def expect_drawn(folder, stages):
    page = folder.parent / "report.html"
    subprocess.run([BINARY, "report", folder, "--output", page], check=True, stdout=subprocess.DEVNULL)
    figures = Figures(page.read_text())
    for i, stage in enumerate(stages):
        names = {tag.split("/")[1] for tag, _ in scalars_in_json(stage)}
        names -= {n for n in names if n.endswith("_standard_error")}
        assert figures.of[f"stage-{i}"] == names, f"{stage.name}: {figures.of[f'stage-{i}'] ^ names}"


def main():
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        whole = scratch / "whole"
        run(whole)
        stages = [whole / name.replace("+", "p") for name in ["sft", "reward", "dpo"] + ROLLOUTS]
        count = sum(expect_same_scalars(stage) for stage in stages)
        print(f"TensorBoard reads {count} numbers of {len(stages)} stages")
        print(f"{expect_documented(stages)} metrics, all documented")
        expect_drawn(whole, stages)
        killed_and_resumed(scratch)

        # The switch changes no result, so a run that has begun may be watched or not.
        run(whole, "tensorboard=false")
        run(scratch / "off", "tensorboard=false", "max_steps=1", "eval_rows=1")
        assert not list((scratch / "off").glob("*/tensorboard"))


main()
