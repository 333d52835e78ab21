"""A short run of three stages (sft, reward, ppo) on a tiny model with weights, for the campaigns that disturb it.

    slot = Slot(binary, folder)            # folder/inputs: model and data; folder/run: output_dir
    slot.start(snapshot)                   # pristine inputs; run as it was kept, or none
    done = slot.run()                      # .returncode, .stderr
    slot.keep("name")                      # the run as it is now, to start from
    slot.results()                         # what a run that goes on must come to, bit for bit

A slot has its own paths, for a run remembers those of its inputs; so several slots work side by side.
"""
import concurrent.futures
import json
import os
import pathlib
import queue
import random
import shutil
import subprocess

TINY = pathlib.Path(__file__).resolve().parent.parent.parent / "examples/tiny"
STAGES = ("sft", "reward", "ppo")
TIMES = ("seconds", "tokens_per_second", "memory_", "peak_memory_mb", "wall_time")
CONFIG = """
seed = 7
threads = 1
output_dir = "run"
[model]
actor = "inputs/model"
[[stage]]
name = "sft"
algorithm = "sft"
max_steps = 1
learning_rate = 1e-2
data.sources = [{ path = "inputs/sft.jsonl" }]
[[stage]]
name = "reward"
algorithm = "reward"
max_steps = 1
learning_rate = 1e-2
data.sources = [{ path = "inputs/pairs.jsonl" }]
[[stage]]
name = "ppo"
algorithm = "ppo"
max_steps = 3
ema_decay = 0.8
actor = { learning_rate = 1e-2 }
rollout = { batch_size = 4, max_response_length = 4 }
data.sources = [{ path = "inputs/prompts.jsonl" }]
""".replace("[[stage]]\n", """[[stage]]
eval_every = 1
eval_rows = 4
checkpoint_every = 1
keep_checkpoints = 2
mini_batch_size = 4
data.heldout_fraction = 0.2
""")


class Slot:
    def __init__(self, binary, folder):
        self.binary, self.folder = str(binary), pathlib.Path(folder)
        self.inputs, self.output = self.folder / "inputs", self.folder / "run"
        self.folder.mkdir(parents=True)
        (self.folder / "run.toml").write_text(CONFIG)
        self._make_inputs()

    def _make_inputs(self):
        model = self.inputs / "model"
        shutil.copytree(TINY / "model", model)
        config = json.loads((model / "config.json").read_text())
        config.update(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=8)
        (model / "config.json").write_text(json.dumps(config))
        for name, count in (("sft", 20), ("pairs", 20), ("prompts", 16)):
            lines = (TINY / "data" / f"{name}.jsonl").read_text().splitlines(keepends=True)[:count]
            (self.inputs / f"{name}.jsonl").write_text("".join(lines))
        drawn = self.run("--set", "model.init=random")
        assert drawn.returncode == 0, drawn.stderr
        shutil.copy(self.output / "sft/model/model.safetensors", model)
        shutil.rmtree(self.output)
        self.keep("none")

    def start(self, snapshot="none"):
        for name in ("inputs", "run"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            if (self.folder / "kept" / snapshot / name).exists():
                shutil.copytree(self.folder / "kept" / snapshot / name, self.folder / name)

    def keep(self, snapshot):
        for name in ("inputs", "run"):
            if (self.folder / name).exists():
                shutil.copytree(self.folder / name, self.folder / "kept" / snapshot / name)

    def run(self, *arguments, **environment):
        return subprocess.run([self.binary, "run", "--config", "run.toml", *arguments], cwd=self.folder, env={**os.environ, **environment},
                              capture_output=True, text=True, errors="backslashreplace", timeout=120)

    def progress(self):
        """How far the run has come: stages done, and the newest checkpoint of the one that is not."""
        done = [(self.output / stage / "done.json").exists() for stage in STAGES] + [False]
        count = done.index(False)
        steps = [p.name for p in self.output.glob(f"{STAGES[count]}/checkpoints/step-*")] if count < len(STAGES) else []
        return count, max(steps, default="")

    def models(self):
        """Every finished model directory's files."""
        return {str(file.relative_to(self.output)): file.read_bytes() for stage in STAGES
                for name in ("model", "ema", "critic", "critic_ema") for file in sorted((self.output / stage / name).glob("**/*")) if file.is_file()}

    def rows(self, after=None):
        """The lines of metrics and evaluations but for their times; `after` (stage, step): the later ones."""
        found = {}
        for stage in STAGES[STAGES.index(after[0]) if after else 0:]:
            for name in ("metrics", "eval"):
                file = self.output / stage / f"{name}.jsonl"
                first = after[1] if after and stage == after[0] else -1
                rows = []
                for line in file.read_text(errors="backslashreplace").splitlines() if file.exists() else []:
                    try:
                        row = json.loads(line)
                        if row["step"] > first:
                            rows.append({k: v for k, v in row.items() if not k.startswith(TIMES)})
                    except (ValueError, KeyError, TypeError, AttributeError):
                        assert after, f"{file}: {line}"
                found[f"{stage}/{name}"] = rows
        return found

    def checkpoints(self):
        return {str(file.relative_to(self.output)): file.read_bytes() for file in self.output.glob("*/checkpoints/step-*/*.safetensors")}


def error_of(done):
    """The one error line of a run that failed as it should; AssertionError where it did otherwise."""
    assert done.returncode == 1, f"exit {done.returncode}"
    lines = done.stderr.splitlines()
    errors = [line for line in lines if line.startswith("dsengine: ")]
    assert len(errors) == 1 and lines[-1] == errors[0], f"not one error line at the end: {lines[-3:]}"
    assert errors[0].startswith("dsengine: error: "), errors[0]
    return errors[0]


def side_by_side(slots, case, cases):
    """case(slot, item) for each of cases, as many at once as there are slots; the results in order."""
    free = queue.SimpleQueue()
    for slot in slots:
        free.put(slot)

    def one(item):
        slot = free.get()
        try:
            return case(slot, item)
        finally:
            free.put(slot)
    with concurrent.futures.ThreadPoolExecutor(len(slots)) as pool:
        return list(pool.map(one, cases))
