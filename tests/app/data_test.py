"""Data as a run sees it: data_test.py BINARY

Ranked answers train as the weighted pairs they stand for, to the same loss; one file serves three stages in disjoint
parts; plain text is learned from; what was cut and left out is counted in the log; epochs are passes.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

BINARY = pathlib.Path(sys.argv[1]).resolve()
MODEL = pathlib.Path(__file__).resolve().parent.parent.parent / "examples/tiny/model"


def run(folder, stages, **files):
    """The log's data lines, as dicts, and each stage's metrics."""
    folder.mkdir()
    for name, records in files.items():
        lines = records if isinstance(records, str) else "".join(json.dumps(r) + "\n" for r in records)
        (folder / name).write_text(lines)
    (folder / "run.toml").write_text(
        f'threads = 1\noutput_dir = "{folder}/out"\n[model]\nactor = "{MODEL}"\ninit = "random"\n' + stages)
    p = subprocess.run([BINARY, "run", "--config", folder / "run.toml"], capture_output=True, text=True, timeout=300)
    assert p.returncode == 0, p.stderr
    (folder / "log").write_text(p.stderr)
    data = [dict(re.findall(r"(\w+)=(\S+)", line)) for line in p.stderr.splitlines() if " data path=" in line]
    metrics = {m.parent.name: [json.loads(line) for line in m.read_text().splitlines()]
               for m in folder.glob("out/*/metrics.jsonl")}
    return data, metrics


def stage(name, algorithm, source, more=""):
    return (f'[[stage]]\nname = "{name}"\nalgorithm = "{algorithm}"\nmax_steps = 1\nmini_batch_size = 8\n'
            f"learning_rate = 1e-3\ndata.sources = [{source}]\n{more}")


def counts(line, *names):
    return [int(line[name]) for name in names]


with tempfile.TemporaryDirectory() as temporary:
    work = pathlib.Path(temporary)

    # (a, b) tie before c: two pairs of half the weight; four rows a step hold one prompt's pairs and another pair twice.
    single = {"prompt": "Is it?", "chosen": "Yes", "rejected": "No"}
    ranked = [{"prompt": "Add 1 and 2.", "ranked": [["It is 3.", "3"], "Red", ], "weight": 0.8}, single]
    plain = [{"prompt": "Add 1 and 2.", "chosen": c, "rejected": "Red", "weight": 0.4} for c in ("It is 3.", "3")]
    losses = []
    for name, records in (("ranked", ranked), ("plain", [*plain, single])):
        data, metrics = run(work / name, stage("reward", "reward", '{ path = "p" }', "epochs = 1\n"), p=records)
        assert counts(data[0], "records", "used") == [3, 3] and data[0]["as"] == "pairs", data
        losses.append(metrics["reward"][0]["loss"])
    assert losses[0] == losses[1], losses

    # One file of pairs for three stages: every record is used once.
    pairs = [{"prompt": f"Question {i}?", "chosen": "Yes", "rejected": "No"} for i in range(60)]
    ppo = stage("ppo", "ppo", '{ path = "p" }', "rollout = { batch_size = 4, max_response_length = 4 }\n")
    data, _ = run(work / "three", stage("sft", "sft", '{ path = "p" }') + stage("reward", "reward", '{ path = "p" }') + ppo
                  + "[data]\nsplit = [2, 4, 4]\n", p=pairs)
    assert [line["as"] for line in data] == ["records", "pairs", "prompts"], data
    assert [line["part"] for line in data] == ["1", "2", "3"], data
    used = [counts(line, "used")[0] for line in data]
    assert sum(used) == 60 and min(used) > 0, used
    assert all(sum(counts(line, "used", "other_parts")) == 60 for line in data), data

    # Text, cut; a prompt too long, an answer too long, and one that leaves no room for an answer.
    long = "word " * 40
    records = [{"prompt": "Hi", "completion": "Yes"}, {"prompt": long, "completion": "Yes"},
               {"prompt": "Hi", "completion": long}]
    limits = "data.max_prompt_length = 20\ndata.max_length = 30\n"
    text = "\n\n".join(f"Paragraph {i} of text." for i in range(9))
    source = '{ path = "r" }, { path = "t", reader = "text", split = "paragraph" }'
    data, metrics = run(work / "cut", stage("sft", "sft", source, limits + 'data.too_long = "truncate"\n'), r=records, t=text)
    names = ["records", "used", "truncated_prompts", "truncated", "dropped_too_long"]
    assert counts(data[0], *names) == [3, 3, 1, 1, 0], data
    assert counts(data[1], *names) == [9, 9, 0, 0, 0] and data[1]["reader"] == "text", data
    assert metrics["sft"][0]["loss"] > 0
    data, _ = run(work / "drop", stage("sft", "sft", source, limits), r=records, t=text)
    assert counts(data[0], *names) == [3, 2, 1, 0, 1], data

    # Passes: every record in each, whatever is left of it in the last step; records, pairs and prompts. Each record has as
    # many tokens as no other, so that what a pass read is told by its sum.
    answers = ["Yes" + ", yes" * i for i in range(5)]
    records = [{"prompt": "Hi", "completion": a} for a in answers]
    pairs = [{"prompt": "Hi", "chosen": a, "rejected": "No"} for a in answers]
    epochs = lambda text, size, n: text.replace("max_steps = 1", f"epochs = {n}").replace("mini_batch_size = 8", f"mini_batch_size = {size}")
    tokens = {}
    for name, algorithm, source, size, steps in (("some", "sft", "r", 2, 3), ("all", "sft", "r", 8, 1), ("even", "sft", "r", 1, 5),
                                                 ("pairs", "reward", "p", 4, 3), ("all_pairs", "reward", "p", 64, 1)):
        _, metrics = run(work / name, epochs(stage("s", algorithm, f'{{ path = "{source}" }}'), size, 2), r=records, p=pairs)
        read = [line["tokens"] for line in metrics["s"]]
        assert len(read) == 2 * steps, (name, read)
        assert sum(read[:steps]) == sum(read[steps:]), (name, read)
        tokens[name] = sum(read[:steps])
    assert tokens["some"] == tokens["all"] == tokens["even"] and tokens["pairs"] == tokens["all_pairs"], tokens
    rollout = "rollout = { batch_size = 4, samples_per_prompt = 2, max_response_length = 4 }\n" \
              'reward = { plugin = "match", kind = "regex", pattern = "e" }\n'
    questions = [{"prompt": f"Question {i}?"} for i in range(6)]
    _, metrics = run(work / "prompts", epochs(stage("s", "grpo", '{ path = "q" }', rollout.replace("batch_size = 4", f'batch_size = 4, record = "{work}/rolls"')), 8, 1), q=questions)
    rolls = [json.loads(f.read_text()) for f in sorted((work / "rolls").iterdir())]
    assert [len(r) for r in rolls] == [8, 4] and len(metrics["s"]) == 2, rolls
    assert len({tuple(a["prompt_ids"]) for r in rolls for a in r}) == 6

    # Answers labelled as bad are not imitated; conversations that part at no answer, and answers that are alike, are not
    # compared: counted and named. A file of each alone is refused.
    bad = {"prompt": "Hi", "completion": "No", "label": False}
    _, only = run(work / "good", stage("sft", "sft", '{ path = "r" }'), r=records)
    data, mixed = run(work / "labels", stage("sft", "sft", '{ path = "r" }'), r=[*records, bad])
    assert counts(data[0], "records", "used", "label_false") == [6, 5, 1] and mixed["sft"][0]["loss"] == only["sft"][0]["loss"]
    h = lambda *turns: "".join(("\n\nHuman: ", "\n\nAssistant: ")[i % 2] + t for i, t in enumerate(turns))
    parted = {"chosen": h("Hi", "Yes", "Bye", "Ok"), "rejected": h("Hi", "Yes", "So", "No")}
    beginning = {"chosen": h("Hi", "Yes", "Why"), "rejected": h("Hi", "Yes", "Why", "No")}
    alike = {"prompt": "Hi", "chosen": "Yes", "rejected": "Yes"}
    _, only = run(work / "few", stage("dpo", "dpo", '{ path = "p" }'), p=pairs)
    data, mixed = run(work / "more", stage("dpo", "dpo", '{ path = "p" }'), p=[parted, *pairs, beginning, alike])
    assert counts(data[0], "records", "used", "equal_answers") == [6, 5, 1] and mixed["dpo"][0]["loss"] == only["dpo"][0]["loss"]
    log = (work / "more/log").read_text()
    assert "2 pairs are not used" in log and "lines 1, 7" in log and "equal_answers=1 records=6 " in log, log
    for name, algorithm, record in (("one", "dpo", parted), ("two", "dpo", beginning), ("three", "dpo", alike), ("four", "sft", bad)):
        try:
            run(work / f"bad_{name}", stage("s", algorithm, '{ path = "p" }'), p=[record])
        except AssertionError as error:
            assert "dsengine: error: " in str(error) and "Traceback" not in str(error), error
        else:
            raise AssertionError(name)
