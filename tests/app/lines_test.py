"""tokenize, score and generate over JSON lines, a window at a time: lines_test.py BINARY

What a line gives does not depend on the lines about it, draws are numbered over the whole input, memory does not grow
with it, and a file of answers appears as a whole or not at all. The truth is what one line gives alone, what one prompt
with --n gives at once, and transformers' ids of conversations (tests/golden/templates).
"""
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading

BINARY = str(pathlib.Path(sys.argv[1]).resolve())
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TINY, TEMPLATES = ROOT / "examples/tiny/model", ROOT / "tests/golden/templates"
WINDOW = 4096  # lines, JsonLines::kWindow


def make_llama(folder, reward=False, vocabulary=800, **config):
    """A llama of one layer with drawn weights, and no tokenizer."""
    folder.mkdir()
    width, draws = 8, random.Random(5)
    shapes = {"model.embed_tokens.weight": (vocabulary, width), "model.norm.weight": (width,)}
    shapes |= {"score.weight": (1, width)} if reward else {"lm_head.weight": (vocabulary, width)}
    layer = {"self_attn.q_proj": (width, width), "self_attn.k_proj": (width, width), "self_attn.v_proj": (width, width),
             "self_attn.o_proj": (width, width), "mlp.gate_proj": (16, width), "mlp.up_proj": (16, width),
             "mlp.down_proj": (width, 16), "input_layernorm": (width,), "post_attention_layernorm": (width,)}
    shapes |= {f"model.layers.0.{name}.weight": shape for name, shape in layer.items()}
    header, data = {}, b""
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = struct.pack(f"<{count}f", *(draws.gauss(1 if len(shape) == 1 else 0, 0.3) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    kind = "LlamaForSequenceClassification" if reward else "LlamaForCausalLM"
    (folder / "config.json").write_text(json.dumps({
        "architectures": [kind], "model_type": "llama", "vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": 1,
        "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
        "max_position_embeddings": 512, "tie_word_embeddings": False, "hidden_act": "silu", "eos_token_id": 1} | config))
    return folder


def run(*command, status=0, **more):
    p = subprocess.run([BINARY, *map(str, command)], capture_output=True, text=True, timeout=600, **more)
    assert p.returncode == status, (command, p.returncode, p.stderr[-1000:])
    return p


def answers(*command, given=None, status=0):
    text = None if given is None else "".join(json.dumps(row) + "\n" for row in given)
    return [json.loads(line) for line in run(*command, status=status, input=text).stdout.splitlines()]


# What a process had resident at most counts what its parent had when it was begun: a parent that has little.
PEAK = """
import os, sys
status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)[1:]
assert status == 0
print(usage.ru_maxrss)
"""


def peak_memory(*command):
    """MiB that the command had resident at most."""
    p = subprocess.run([sys.executable, "-c", PEAK, BINARY, *map(str, command)], capture_output=True, text=True, check=True)
    return int(p.stdout) / 1024


def windows(model, reward, folder):
    """What a line gives is what it gives alone, wherever the windows are cut."""
    draws = random.Random(2)
    rows = [{"input_ids": [draws.randrange(2, 90) for _ in range(draws.randrange(1, 12))], "at": i} for i in range(WINDOW + 900)]
    rows[100] = {"pad": "x" * 3_000_000, **rows[100]}  # windows end with their bytes too
    rows[200] = {"pad": "x" * 3_000_000, **rows[200]}
    lines = [json.dumps(row) for row in rows]
    lines[7] = "no JSON"
    lines[WINDOW + 50] = '{"input_ids": [5, 5000]}'
    lines[9] += "\n\n  "  # blank lines do not count
    (folder / "in").write_text("\n".join(lines))  # no end of line at the end
    for option, key in (("--model", "logprobs"), ("--reward", "reward")):
        path = reward if option == "--reward" else model
        p = run("score", option, path, "--input", folder / "in", "--output", folder / "out", status=1)
        assert f"2 of {len(rows)} lines" in p.stderr, p.stderr
        made = [json.loads(line) for line in (folder / "out").read_text().splitlines()]
        assert len(made) == len(rows)
        assert [i for i, row in enumerate(made) if "error" in row] == [7, WINDOW + 50]
        assert f"{folder}/in:8: not valid JSON" in made[7]["error"], made[7]
        assert all(row["at"] == i for i, row in enumerate(made) if "error" not in row)
        for i in (0, 100, 101, 200, WINDOW - 1, WINDOW, WINDOW + 1, len(rows) - 1):
            assert answers("score", option, path, given=[rows[i]])[0][key] == made[i][key], (option, i)

    # Row i's draws are those of (seed, i): what one prompt's i-th answer of --n is drawn with.
    sampled = ["generate", "--model", model, "--max-new-tokens", 5, "--ignore-eos", "--seed", 3]
    for n in (1, 3):
        at_once = answers(*sampled, "--n", 30 * n, given=[{"input_ids": [5, 6]}])[0]
        rows = answers(*sampled, "--n", n, given=[{"input_ids": [5, 6], "pad": "x" * (i % 7 // 5 * 3_000_000)} for i in range(30)])
        flat = lambda key: [row[key] for row in rows] if n == 1 else [value for row in rows for value in row[key]]
        assert flat("output_ids") == at_once["output_ids"] and flat("logprobs") == at_once["logprobs"]
        assert len({tuple(ids) for ids in at_once["output_ids"]}) == 30 * n


def memory(model, folder):
    def write(name, lines, count):
        with open(folder / name, "w") as f:
            for i in range(count):
                f.write(lines[i % len(lines)] + "\n")
        return folder / name

    texts = [json.dumps({"text": f"Question {i}: is it the answer, or is it not? " * 3}) for i in range(101)]
    ids = [json.dumps({"input_ids": [5 + i % 50] * (1 + i % 8)}) for i in range(101)]
    for command, lines, small, large in (("tokenize", texts, 8_000, 300_000), ("score", ids, 8_000, 60_000)):
        least = peak_memory(command, "--model", model, "--input", write("small", lines, small), "--output", folder / "out")
        most = peak_memory(command, "--model", model, "--input", write("large", lines, large), "--output", folder / "out")
        print(f"{command}: {small} lines {least:.0f} MiB, {large} lines {most:.0f} MiB")
        assert most < least + 48, (command, least, most)
        first = []
        with open(folder / "out") as out:
            for i, line in enumerate(out):
                if i < len(lines):
                    first.append(line)
                assert line == first[i % len(lines)], (command, i)
        assert i == large - 1
        for name in ("small", "large", "out"):
            (folder / name).unlink()


def files(model, folder):
    """Output files are whole or not there; a pipe gets each window, and may close."""
    left = lambda: sorted(p.name for p in folder.iterdir())
    lines = "".join(json.dumps({"input_ids": [5, 6], "at": i}) + "\n" for i in range(WINDOW + 10))
    file = folder / "lines"
    file.write_text(lines)
    tokenize = ["tokenize", "--model", model]

    # What a killed run left of this file is removed, another's that lives is not; an input may be its own output.
    dead = subprocess.Popen(["true"])
    dead.wait()
    for pid in (dead.pid, os.getpid()):
        (folder / f".lines.tmp-{pid}").write_text("half")
    (folder / "link").symlink_to("lines")
    run(*tokenize, "--input", file, "--output", folder / "link")
    assert left() == [f".lines.tmp-{os.getpid()}", "lines", "link"] and (folder / "link").is_symlink(), left()
    (folder / f".lines.tmp-{os.getpid()}").unlink()
    made = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(made) == WINDOW + 10 and all(row["at"] == i and row["text"] for i, row in enumerate(made))

    # Until it is whole, the former content stands.
    kept = folder / "kept"
    kept.write_text("former\n")
    child = subprocess.Popen([BINARY, *map(str, tokenize), "--output", kept], stdin=subprocess.PIPE)
    child.stdin.write(lines.encode() * 2), child.stdin.flush()
    assert kept.read_text() == "former\n"
    child.stdin.close()
    assert child.wait() == 0 and kept.read_text().count("\n") == 2 * (WINDOW + 10)
    kept.unlink()

    # A read that fails is no end.
    for source, reason in (("/proc/self/mem", "cannot read /proc/self/mem: Input/output error"),
                           (folder, "it is a directory"), ("/dev/null", "/dev/null: no JSON lines in it")):
        p = run(*tokenize, "--input", source, "--output", kept, status=1)
        assert reason in p.stderr and len(p.stderr.splitlines()) == 1, p.stderr
        assert left() == ["lines", "link"], left()
    p = subprocess.run([BINARY, *map(str, tokenize)], stdin=open("/proc/self/mem"), capture_output=True, text=True)
    assert p.returncode == 1 and "cannot read standard input" in p.stderr, p.stderr
    for command in (["reference"], ["--help"], ["plugins", "list"]):
        with open("/dev/full", "w") as full:
            p = subprocess.run([BINARY, *command], stdout=full, stderr=subprocess.PIPE, text=True)
        assert p.returncode == 1 and p.stderr == "dsengine: error: standard output cannot be written to\n", (command, p.stderr)
    for target in (["--output", "/dev/full"], []):
        with open("/dev/full", "w") as full:
            p = subprocess.run([BINARY, *map(str, tokenize), "--input", file, *target], stdout=full, stderr=subprocess.PIPE, text=True)
        assert p.returncode == 1 and "No space left" in p.stderr and len(p.stderr.splitlines()) == 1, p.stderr

    for target, reason in ((folder, "is a directory"), ("/nowhere/x", "cannot write in /nowhere: No such file")):
        p = run(*tokenize, "--input", file, "--output", target, status=1)
        assert f"--output {target}: {reason}" in p.stderr, p.stderr

    # A window is written as soon as it is done, before the input ends.
    for named in (False, True):
        pipe = folder / "pipe"
        os.mkfifo(pipe)
        child = subprocess.Popen([BINARY, *map(str, tokenize), *(["--output", pipe] if named else [])], stdin=subprocess.PIPE,
                                 stdout=subprocess.DEVNULL if named else subprocess.PIPE)
        child.stdin.write(lines.encode()), child.stdin.flush()
        with (open(pipe, "rb") if named else child.stdout) as out:
            seen = [json.loads(out.readline())["at"] for _ in range(WINDOW)]
            assert seen == list(range(WINDOW)) and child.poll() is None
            child.stdin.close()
            assert len(out.readlines()) == 10
        assert child.wait() == 0
        # One that closes ends the program, with nothing to say.
        child = subprocess.Popen([BINARY, *map(str, tokenize), *(["--output", pipe] if named else [])], stdin=subprocess.PIPE,
                                 stdout=subprocess.DEVNULL if named else subprocess.PIPE, stderr=subprocess.PIPE)
        def feed(child=child):
            try:
                for _ in range(1000):
                    child.stdin.write(lines.encode())
            except BrokenPipeError:
                pass
        feeder = threading.Thread(target=feed)
        feeder.start()
        with (open(pipe, "rb") if named else child.stdout) as out:
            out.readline()
        assert child.wait(timeout=60) == 1 and child.stderr.read() == b"", child.returncode
        feeder.join()
        pipe.unlink()
    assert left() == ["lines", "link"], left()


def empty(model, reward, folder):
    """An empty text is no tokens; what it is answered with is begun by bos_token_id, as transformers' pipeline does."""
    plain = shutil.copytree(model, folder / "plain")
    tokenizer = json.loads((TINY / "tokenizer.json").read_text())
    del tokenizer["post_processor"]
    (plain / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert answers("tokenize", "--model", plain, given=[{"text": ""}, {"input_ids": []}]) == [
        {"text": "", "input_ids": []}, {"input_ids": [], "text": ""}]
    assert answers("tokenize", "--model", TINY, given=[{"text": ""}]) == [{"text": "", "input_ids": [0]}]
    nothing = [{"text": ""}, {"input_ids": []}, {"input_ids": [5, 6]}]
    made = answers("score", "--model", plain, given=nothing)
    assert made[:2] == [{"text": "", "input_ids": [], "logprobs": []}, {"input_ids": [], "logprobs": []}], made
    assert len(made[2]["logprobs"]) == 1
    shutil.copy(plain / "tokenizer.json", reward)
    made = answers("score", "--reward", reward, given=nothing, status=1)
    assert ["no tokens" in row.get("error", "") for row in made] == [True, True, False], made

    greedy = ["generate", "--temperature", 0, "--max-new-tokens", 4, "--ignore-eos", "--model"]
    made = answers(*greedy, plain, given=[*nothing, {"input_ids": [7]}], status=1)
    assert all("an empty prompt" in row["error"] for row in made[:2]) and "output_ids" in made[2], made
    (plain / "generation_config.json").write_text('{"bos_token_id": 7, "eos_token_id": 1}')
    begun = answers(*greedy, plain, given=[*nothing, {"input_ids": [7]}], status=1)
    assert begun[0]["output_ids"] == made[3]["output_ids"] and "error" in begun[1], begun


def conversations(folder):
    """messages, and prompt with completion, are scored as training reads them."""
    cases = json.loads((TEMPLATES / "conversations.json").read_text())["cases"]
    for name in ("chatml", "generation", "llama3"):
        golden = json.loads((TEMPLATES / f"{name}.json").read_text())
        end = {"chatml": "<|im_end|>", "generation": "<|im_end|>", "llama3": "<|eot_id|>"}[name]
        models = [make_llama(folder / f"{name}_{kind}", kind == "reward") for kind in ("model", "reward")]
        for model in models:
            shutil.copy(TEMPLATES / f"{name}.jinja", model / "chat_template.jinja")
            shutil.copy(TEMPLATES / golden["tokenizer"] / "tokenizer.json", model)
            (model / "tokenizer_config.json").write_text(json.dumps(golden["config"]))
        tokens = json.loads((models[0] / "tokenizer.json").read_text())["added_tokens"]
        end = next(t["id"] for t in tokens if t["content"] == end)
        for model in models:
            config = json.loads((model / "config.json").read_text())
            (model / "config.json").write_text(json.dumps(config | {"eos_token_id": end}))
        # transformers' ids; behind an answer nothing is learned.
        rows = [(c["messages"], r["ids"]) for c, r in zip(cases, golden["rows"])
                if r and "ids" in r and not c["add"] and not {"tools", "documents", "variables"} & set(c)]
        wanted = [ids if m[-1]["role"] != "assistant" else ids[:len(ids) - ids[::-1].index(end)] for m, ids in rows]
        assert len(rows) >= 10 and sum(w != ids for w, (_, ids) in zip(wanted, rows)) >= (0 if name == "llama3" else 3)
        for option, model, key in (("--model", models[0], "logprobs"), ("--reward", models[1], "reward")):
            made = answers("score", option, model, given=[{"messages": m} for m, _ in rows])
            assert [row["input_ids"] for row in made] == wanted, (name, option)
            same = answers("score", option, model, given=[{"input_ids": ids} for ids in wanted])
            assert [row[key] for row in made] == [row[key] for row in same]
        pairs = [(m[0]["content"], m[1]["content"]) for m, _ in rows
                 if [t["role"] for t in m] == ["user", "assistant"] and all(isinstance(t["content"], str) for t in m)]
        assert pairs
        for option, model in (("--model", models[0]), ("--reward", models[1])):
            whole = answers("score", option, model, given=[{"messages": [{"role": "user", "content": p}, {"role": "assistant", "content": a}]} for p, a in pairs])
            split = answers("score", option, model, given=[{"prompt": p, "completion": a} for p, a in pairs])
            assert [{**w, "messages": 0} for w in whole] == [{"messages": 0, **{k: v for k, v in s.items() if k not in ("prompt", "completion")}} for s in split]

    # Without a template: DeepSpeed-Chat's form, its end-of-sequence token behind the answer.
    model = folder / "form"
    make_llama(model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, model)
    turns, answer = [{"role": "user", "content": "Is it?"}], [{"role": "assistant", "content": "Yes"}]
    made = answers("score", "--model", model, given=[{"prompt": turns, "completion": answer}, {"prompt": turns, "completion": turns},
                                                     {"prompt": turns + answer, "completion": "Yes"}, {"messages": turns + answer}], status=1)
    whole = made[3]["input_ids"]
    assert made[0]["input_ids"] == whole and "one turn of the assistant" in made[1]["error"] and "end with an answer" in made[2]["error"], made
    asked = answers("generate", "--model", model, "--max-new-tokens", 3, "--temperature", 0, given=[{"prompt": "Is it?"}, {"prompt": turns}])
    assert asked[0]["output_ids"] == asked[1]["output_ids"], asked
    made = answers("score", "--model", model, given=[{"prompt": "Is it?", "completion": "Yes"}, {"prompt": "Is it?"},
                                                     {"prompt": "Is it?", "completion": ""}, {"messages": []}], status=1)
    text = answers("tokenize", "--model", model, given=[{"text": "Human: Is it?\nAssistant: Yes</s>"}])[0]["input_ids"]
    assert made[0]["input_ids"] == text == whole, (made[0], text)
    assert "'prompt' with 'completion'" in made[1]["error"] and "messages" in made[3]["error"], made
    assert made[2]["input_ids"][-1] == 1 and len(made[2]["logprobs"]) == len(made[2]["input_ids"]) - 1

    # An answer stands in reply, and in text where the line has none of its own.
    given = [{"text": "Is it?"}, {"prompt": "Is it?"}, {"input_ids": [5], "text": "mine"}]
    for n in (1, 2):
        made = answers("generate", "--model", model, "--max-new-tokens", 3, "--n", n, given=given)
        assert [row["text"] for row in made] == ["Is it?", made[1]["reply"], "mine"], made
        assert all(isinstance(row["reply"], str if n == 1 else list) for row in made)


def names(model, reward, folder):
    """Directories that are none, and models of the other kind, are named as what they are."""
    (folder / "empty").mkdir()
    stage = folder / "stage"
    (stage / "model").mkdir(parents=True)
    (stage / "model/config.json").write_text("{}")
    for command in (["tokenize", "--model"], ["score", "--model"], ["score", "--reward"], ["generate", "--model"], ["chat", "--model"],
                    ["export", "--output", folder / "x", "--model"]):
        says = lambda path, words: [words in p.stderr and str(path) in p.stderr and len(p.stderr.splitlines()) == 1 or print(p.stderr)
                                    for p in [run(*command, path, status=1, input="")]] == [True]
        assert says("/nowhere/model", f"{command[-1]} /nowhere/model: there is no such directory"), command
        assert says(model / "config.json", "is a file: give the directory it is in"), command
        no_config = "no tokenizer.json" if command[0] == "tokenize" else "no config.json is in it"
        assert says(folder / "empty", no_config), command
        assert command[0] == "tokenize" or says(stage, f"give {stage}/model"), command
    for command in (["score"], ["generate"], ["chat"]):
        p = run(*command, "--model", reward, status=1, input="{}")
        assert "a reward model or critic" in p.stderr and "score --reward" in p.stderr, p.stderr
    p = run("score", "--reward", model, status=1, input="{}")
    assert "this is not a reward model" in p.stderr, p.stderr

    # --plugin-path stands before a command and behind it, and is searched.
    for command in (["plugins", "list"], ["plugins", "info", "ppo"], ["plugins", "verify", "match"], ["score", "--model", model]):
        for at in range(len(command) + 1):
            if at > 0 and command[at - 1] == "--model":
                continue
            p = run(*command[:at], "--plugin-path", "/nowhere/plugins", *command[at:], status=1, input="{}")
            assert "plugin path /nowhere/plugins: there is no such folder" in p.stderr, (command, at, p.stderr)
    run("tokenize", "--plugin-path", folder, "--model", TINY, input='{"text": "a"}\n')
    p = run("--plugin-path", folder, "plugins", "--plugin-path", "/nowhere/second", "list", status=1)
    assert "/nowhere/second" in p.stderr, p.stderr
    for before in (["--config", "x.toml"], ["--set", "seed=1"]):
        p = run(*before, "score", "--model", model, status=1, input="{}")
        assert "belongs to 'run'" in p.stderr, p.stderr


with tempfile.TemporaryDirectory() as temporary:
    work = pathlib.Path(temporary)
    language, value = make_llama(work / "language"), make_llama(work / "value", reward=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, language)
    for part, *models in ((windows, language, value), (memory, language), (files, TINY), (empty, language, value), (conversations,),
                          (names, language, value)):
        folder = work / part.__name__
        folder.mkdir()
        part(*models, folder)
print("lines: the same in windows as alone, whole files, constant memory")
