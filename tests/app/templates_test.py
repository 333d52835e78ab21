"""Conversations by the model's chat template, through the program: templates_test.py BINARY

tokenize is held to what transformers made of the goldens' conversations (tests/golden/make_templates.py); a conversation
that a template refuses fails alone.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

BINARY = str(pathlib.Path(sys.argv[1]).resolve())
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GOLDEN = ROOT / "tests/golden/templates"


def run(*command, status=0, **more):
    p = subprocess.run([BINARY, *map(str, command)], capture_output=True, text=True, timeout=300, **more)
    assert p.returncode == status, (command, p.returncode, p.stderr[-1000:])
    return p


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def put_template(folder, name):
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    shutil.copy(GOLDEN / f"{name}.jinja", folder / "chat_template.jinja")
    return golden


with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    cases = json.loads((GOLDEN / "conversations.json").read_text())["cases"]
    asked = [i for i, c in enumerate(cases) if c["add"]]
    for name in ("qwen2_tools", "qwen3_thinking", "mistral_v03_tools", "gemma", "command_r"):
        model = folder / name
        model.mkdir()
        golden = put_template(model, name)
        shutil.copy(GOLDEN / golden["tokenizer"] / "tokenizer.json", model)
        (model / "tokenizer_config.json").write_text(json.dumps(golden["config"]))
        write_lines(folder / "in", [{"messages": cases[i]["messages"], **{k: cases[i][k] for k in ("tools", "documents") if k in cases[i]},
                                     "chat_template_kwargs": cases[i].get("variables")} for i in asked])
        refused = sum(golden["rows"][i] is None for i in asked)
        run("tokenize", "--model", model, "--input", folder / "in", "--output", folder / "out", status=1 if refused else 0)
        made = lines(folder / "out")
        assert len(made) == len(asked)
        for i, line in zip(asked, made):
            row = golden["rows"][i]
            if row is None:
                assert list(line) == ["error"] and "chat_template.jinja:" in line["error"], line
            else:
                assert line["text"] == row["text"], (name, i, line["text"], row["text"])
                assert "ids" not in row or line["input_ids"] == row["ids"], (name, i)

    # A model's own template: its line in what it refuses; the others are answered. chat begins with it too.
    model = folder / "model"
    shutil.copytree(ROOT / "tests/golden/llama_mha", model)
    (model / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": {"a": 5, "x": 6}, "merges": []}}))
    (model / "chat_template.jinja").write_text("{% for m in messages %}\n{% if m.role == 'system' %}\n{{ raise_exception('no system turns') }}{% endif %}"
                                               "{{ m.content }}{% endfor %}")
    write_lines(folder / "in", [{"messages": [{"role": "user", "content": "a"}]}, {"messages": [{"role": "system", "content": "x"}]}, {"prompt": "a"}])
    run("generate", "--model", model, "--input", folder / "in", "--output", folder / "out", "--max-new-tokens", 3, "--temperature", 0, status=1)
    made = lines(folder / "out")
    assert made[1]["error"].endswith("chat_template.jinja:3: the chat template refuses this conversation: no system turns"), made[1]
    assert made[0]["output_ids"] == made[2]["output_ids"] and len(made[0]["output_ids"]) > 0, made
print("templates: texts and ids as transformers', refusals alone")
