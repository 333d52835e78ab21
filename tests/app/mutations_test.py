"""A mutation campaign: damaged and hostile files, one at a time, of every kind that the program reads, by every command
that reads it.

    mutations_test.py BINARY [--cases N] [--first I] [--workers W] [--keep FOLDER]

Case I is drawn from the number I alone, so that a finding is made again with --first I --cases 1. Without --cases: 500,
and 6000 where the environment says DSENGINE_FULL=1. What is held: the program ends by itself, by no signal, within 20
seconds and 1 GB; it succeeds, or its last line is one "dsengine: error: …" that names the file or its folder, of at most
4000 printable characters, no word of an internal error. Commands over lines say it in the line's place instead. Nothing
that is not finite is written, no escape sequence reaches the terminal, and no export holds what a secret file said.
"""
import argparse
import concurrent.futures
import gzip
import json
import os
import pathlib
import queue
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import mutations as m  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TINY, GOLDEN = ROOT / "examples/tiny", ROOT / "tests/golden"
MOST_SECONDS, MOST_BYTES, MOST_LINE = 20, 10**9, 4000
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

CONFIG = """seed = 7
output_dir = "run"
threads = 1
log_level = "info"
tensorboard = true
[model]
actor = "base"
init = "random"
[data]
max_length = 64
max_prompt_length = 32
[[stage]]
name = "sft"
algorithm = "sft"
epochs = 1
max_steps = 1
mini_batch_size = 2
learning_rate = 1e-3
beta1 = 0.9
grad_clip = 1.0
schedule = "cosine"
warmup_steps = 0
checkpoint_every = 1
eval_rows = 2
data.sources = [{ path = "records.jsonl", weight = 1.0 }]
data.heldout_fraction = 0.1
[[stage]]
name = "reward"
algorithm = "reward"
max_steps = 1
mini_batch_size = 2
eval_rows = 2
data.sources = [{ path = "pairs.jsonl.gz" }]
"""
TEMPLATE = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ 'U: ' + message['content'] | trim + '\\n' }}\
{% elif message['role'] == 'system' %}{{ message['content'] ~ '\\n' }}{% else %}{% generation %}{{ 'A: ' ~ message['content'] ~ eos_token }}{% endgeneration %}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ 'A: ' }}{% endif %}"""
CONVERSATION = {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What does a duck do?"}]}


def run(binary, folder, *command, stdin=""):
    return subprocess.run([binary, *map(str, command)], cwd=folder, input=stdin, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)


def first_lines(path, count):
    return "".join(line + "\n" for line in path.read_text().splitlines()[:count])


def make_fixture(binary, folder):
    """A folder with every kind of file, made by the program itself where it can."""
    base = folder / "base"
    shutil.copytree(TINY / "model", base)
    config = json.loads((base / "config.json").read_text())
    config.update(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=4096)
    config["rope_scaling"] = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 1024}
    (base / "config.json").write_text(json.dumps(config, indent=1))
    (base / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "records.jsonl").write_text(first_lines(TINY / "data/sft.jsonl", 12) + json.dumps({**CONVERSATION, "weight": 0.5}).replace("}]", '}, {"role": "assistant", "content": "It quacks."}]') + "\n")
    (folder / "pairs.jsonl").write_text(first_lines(TINY / "data/pairs.jsonl", 8))
    (folder / "pairs.jsonl.gz").write_bytes(gzip.compress((folder / "pairs.jsonl").read_bytes(), mtime=0))
    (folder / "prose.txt").write_text("The duck quacks.\n\nThe cow says moo, and the sky is blue. " * 20)
    (folder / "run.toml").write_text(CONFIG)
    lines = [CONVERSATION, {"text": "What does a duck do?"}, {"input_ids": [0, 5, 9, 700]}, {"prompt": "Add 4 and 4.", "completion": "It is 8."}]
    (folder / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run(binary, folder, "run", "--config", "run.toml")
    assert done.returncode == 0, done.stderr
    model = folder / "run/sft/model"
    shutil.copytree(model, folder / "model")
    shutil.copytree(folder / "run/reward/model", folder / "judge")
    trained = run(binary, folder, "run", "--config", "run.toml", "--set", "lora.rank=4", "--set", "output_dir=tuned", "--set", "model.actor=model", "--set", "model.init=pretrained")
    assert trained.returncode == 0, trained.stderr
    shutil.move(folder / "tuned/sft/adapter", folder / "adapter")
    shutil.rmtree(folder / "tuned")
    adapter = json.loads((folder / "adapter/adapter_config.json").read_text())
    adapter["base_model_name_or_path"] = "../model"
    (folder / "adapter/adapter_config.json").write_text(json.dumps(adapter, indent=1))
    sharded = run(binary, folder, "export", "--model", "model", "--output", "sharded", "--shard-size", "20KB")
    assert sharded.returncode == 0, sharded.stderr
    weights = (folder / "model/model.safetensors").read_bytes()
    names = [name for name in m.split_safetensors(weights)[0] if name != "__metadata__"]
    for kind in ("torch", "torch_sharded"):
        shutil.copytree(folder / "model", folder / kind)
        (folder / kind / "model.safetensors").rename(folder / kind / "source.safetensors")
    (folder / "torch/pytorch_model.bin").write_bytes(m.stored_zip(m.bin_members(weights)))
    halves = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, own in halves.items():
        (folder / "torch_sharded" / file).write_bytes(m.stored_zip(m.bin_members(weights, own)))
    (folder / "torch_sharded/pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {n: f for f, own in halves.items() for n in own}}))
    # The older forms of a tokenizer.
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    shutil.copytree(folder / "model", folder / "merges")
    (folder / "merges/tokenizer.json").unlink()
    (folder / "merges/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}, "add_bos_token": True, "add_prefix_space": False}))
    (folder / "merges/vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"], ensure_ascii=False))
    (folder / "merges/merges.txt").write_text("#version: 0.2\n" + "\n".join(x if isinstance(x, str) else " ".join(x) for x in tokenizer["model"]["merges"]) + "\n")
    (folder / "merges/special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}, "additional_special_tokens": ["<x>"]}))
    (folder / "merges/added_tokens.json").write_text(json.dumps({"<x>": 768, "<y>": 769}))
    shutil.copytree(GOLDEN / "tokenizers/small/spm_plain", folder / "pieces")


def chat_lines():
    return "What does a duck do?\n/set temperature 0.5\nAnd a cow?\n"


def cases():
    """(what, file, its mutation, command, standard input): each kind of file with each command that reads it."""
    score = lambda model: ("score", "--model", model, "--input", "lines.jsonl", "--threads", "1")
    generate = lambda model: ("generate", "--model", model, "--input", "lines.jsonl", "--max-new-tokens", "4", "--threads", "1")
    tokenize = lambda model: ("tokenize", "--model", model, "--input", "lines.jsonl")
    export = lambda model: ("export", "--model", model, "--output", "out")
    chat = lambda model: ("chat", "--model", model, "--max-new-tokens", "4")
    evaluate = ("eval", "--model", "model", "--reward-model", "judge", "--data", "pairs.jsonl", "--rows", "4", "--max-new-tokens", "4", "--threads", "1", "--output", "out.json")
    one = ("--set", "output_dir=fresh", "--set", "max_steps=1")
    fresh = ("run", "--config", "run.toml", *one)
    tuned = ("run", "--config", "run.toml", *one, "--set", "model.actor=model", "--set", "model.init=pretrained")
    again = ("run", "--config", "run.toml")
    table = []

    def add(file, mutation, *commands):
        for command in commands:
            table.append((file, mutation, command))

    add("base/config.json", m.mutate_json, fresh, ("plugins", "verify", "llama", "--config", "base/config.json"))
    add("model/config.json", m.mutate_json, score("model"), generate("model"), export("model"), evaluate, chat("model"), tuned)
    add("judge/config.json", m.mutate_json, ("score", "--reward", "judge", "--input", "lines.jsonl", "--threads", "1"), evaluate)
    add("model/generation_config.json", m.mutate_json, generate("model"), export("model"))
    add("model/tokenizer.json", m.mutate_json, tokenize("model"), generate("model"), export("model"), tuned)
    add("model/tokenizer_config.json", m.mutate_json, tokenize("model"), chat("model"), export("model"))
    add("merges/tokenizer_config.json", m.mutate_json, tokenize("merges"))
    add("merges/special_tokens_map.json", m.mutate_json, tokenize("merges"), chat("merges"))
    add("merges/added_tokens.json", m.mutate_json, tokenize("merges"))
    add("merges/vocab.json", m.mutate_json, tokenize("merges"), export("merges"))
    add("merges/merges.txt", m.mutate_text, tokenize("merges"), export("merges"))
    add("model/chat_template.jinja", m.mutate_template, tokenize("model"), chat("model"), export("model"), tuned)
    add("pieces/tokenizer.model", m.mutate_text, tokenize("pieces"))
    add("pieces/tokenizer_config.json", m.mutate_json, tokenize("pieces"))
    add("model/model.safetensors", m.mutate_safetensors, score("model"), generate("model"), export("model"), tuned, evaluate, chat("model"))
    add("judge/model.safetensors", m.mutate_safetensors, ("score", "--reward", "judge", "--input", "lines.jsonl", "--threads", "1"), evaluate)
    add("sharded/model.safetensors.index.json", m.mutate_json, score("sharded"), export("sharded"))
    add("sharded/model-00002-of-*.safetensors", m.mutate_safetensors, score("sharded"))
    add("torch/pytorch_model.bin", m.mutate_bin, score("torch"), export("torch"))
    add("torch_sharded/pytorch_model.bin.index.json", m.mutate_json, score("torch_sharded"))
    add("torch_sharded/pytorch_model-00001-of-00002.bin", m.mutate_bytes, score("torch_sharded"))
    add("adapter/adapter_config.json", m.mutate_json, score("adapter"), generate("adapter"), export("adapter"))
    add("adapter/adapter_model.safetensors", m.mutate_safetensors, score("adapter"), export("adapter"))
    add("run.toml", m.mutate_toml, fresh, tuned)
    add("records.jsonl", m.mutate_lines, fresh, ("eval", "--model", "model", "--data", "records.jsonl", "--rows", "4", "--threads", "1"))
    add("pairs.jsonl.gz", m.mutate_gzip, fresh, ("eval", "--reward-model", "judge", "--data", "pairs.jsonl.gz", "--rows", "4", "--threads", "1"))
    add("prose.txt", m.mutate_text, ("eval", "--model", "model", "--data", "prose.txt", "--reader", "text", "--rows", "4", "--threads", "1"))
    for file in ("sft/done.json", "reward/done.json", "sft/inputs.json"):
        add(f"run/{file}", m.mutate_json, again, export("run/sft"))
    add("run/sft/settings.txt", m.mutate_text, again)
    for file in ("sft/metrics.jsonl", "sft/eval.jsonl"):
        add(f"run/{file}", m.mutate_lines, again, ("report", "run", "--output", "page.html"))
    add("run/config.toml", m.mutate_toml, ("report", "run", "--output", "page.html"))
    add("run/*/checkpoints/step-*/manifest.json", m.mutate_json, again)
    add("run/reward/model/score_moments.json", m.mutate_json, export("run/reward"), evaluate)
    add("lines.jsonl", m.mutate_lines, score("model"), generate("model"), tokenize("model"), ("score", "--reward", "judge", "--input", "lines.jsonl", "--threads", "1"))
    return table


def prepare(work):
    """Makes the folder anew, where it was made at first: a run's settings name it."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(work.with_suffix(".whole"), work, symlinks=True)


def limit():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (16 * 10**9, 16 * 10**9))  # a finding of the campaign ends it, not the machine


def measure(binary, command, work, stdin):
    """Exit status, output, error text, seconds, peak bytes."""
    with open(work / ".out", "wb+") as out, open(work / ".err", "wb+") as err, open(work / ".in", "wb+") as given:
        given.write(stdin.encode())
        given.seek(0)
        begin = time.monotonic()
        process = subprocess.Popen([binary, *command], cwd=work, stdin=given, stdout=out, stderr=err, env=ENVIRONMENT, preexec_fn=limit)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            seconds = time.monotonic() - begin
            if pid:
                break
            if seconds > 6 * MOST_SECONDS:
                process.kill()
                _, status, usage = os.wait4(process.pid, 0)
                break
            time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        # Of a busy machine's seconds those count that the program had; of one that waits, all.
        used = usage.ru_utime + usage.ru_stime
        return process.returncode, out.read(), err.read(), used if seconds < 6 * MOST_SECONDS else seconds, usage.ru_maxrss * 1024


def is_clean(text):
    return not any(ord(c) < 32 and c not in "\n\t" or 127 <= ord(c) < 160 for c in text)


def has_nan(value):
    if isinstance(value, float):
        return value != value or value in (float("inf"), float("-inf"))
    return any(map(has_nan, value.values() if isinstance(value, dict) else value if isinstance(value, list) else []))


def faults(file, command, work, result):
    status, out, err, seconds, peak = result
    found = []
    if status < 0 or status > 128:
        found.append(f"ended by signal {-status}")
    elif status not in (0, 1):
        found.append(f"exit {status}")
    if seconds > MOST_SECONDS:
        found.append(f"{seconds:.0f} seconds")
    if peak > MOST_BYTES:
        found.append(f"{peak / 1e9:.2f} GB")
    try:
        error, output = err.decode(), out.decode()
    except UnicodeDecodeError:
        return found + ["output that is no UTF-8"]
    last = error.rstrip("\n").split("\n")[-1]
    by_lines = command[0] in ("score", "generate", "tokenize") and "failed: see" in last
    if "internal error" in error:
        found.append("an internal error")
    if status == 1 and not by_lines and "verify" not in command:
        names = [pathlib.PurePath(file).name, str(pathlib.PurePath(file).parent)]
        names += ["run/"] if file.startswith("run/") else []
        names += ["stage '", "data.max_length ="] if file == "run.toml" else []  # what a stage lacks is said with its key
        names += ["the chat template "] if file.endswith(".jinja") else []  # of a record that it cannot be asked for
        names += ["the loss is not finite"] if file.endswith(".safetensors") else []  # trained from weights that hold NaN
        if not last.startswith("dsengine: error: ") or error.count("dsengine: error: ") != 1:
            found.append("no error line at the end")
        elif not any(name in last for name in names if name != "."):
            found.append("the error does not name the file")
        elif len(last) > MOST_LINE:
            found.append(f"an error line of {len(last)} characters")
    if not is_clean(error) or (command[0] in ("chat", "eval", "score", "generate", "tokenize") and not is_clean(output)):
        found.append("a control character reached the terminal")
    if command[0] in ("score", "generate", "tokenize"):
        lines = [json.loads(line) for line in output.splitlines()]
        if any(map(has_nan, lines)) or (status == 0 and '[null' in output):
            found.append("numbers that are none")
        if status == 0 and any("error" in line and "error" not in json.dumps(CONVERSATION) for line in lines) and file != "lines.jsonl":
            found.append("exit 0 with an error in a line")
    written = work / "out"
    if command[0] == "export" and written.is_dir():
        if any(b"top secret" in path.read_bytes() for path in written.rglob("*") if path.is_file()):
            found.append("a secret went into the export")
        if any(path.is_symlink() for path in written.rglob("*")):
            found.append("a link went into the export")
    return found


def run_case(index, binary, folders, table, keep):
    work = folders.get()
    try:
        return case_in(work, index, binary, table, keep)
    finally:
        folders.put(work)


def case_in(work, index, binary, table, keep):
    for attempt in (1, 2):  # a machine that stands still is no finding: what hangs does so twice
        r = random.Random(f"mutations {index}")
        file, mutation, command = table[index % len(table)]
        prepare(work)
        path = sorted(work.glob(file))[0]
        file = str(path.relative_to(work))
        if path.name == "manifest.json":  # a stage that has not ended
            (path.parents[2] / "done.json").unlink(missing_ok=True)
        if r.random() < 0.06:
            mutation = m.replace_by
        what = mutation(path, r)
        result = measure(binary, command, work, chat_lines() if command[0] == "chat" else "")
        if result[3] <= MOST_SECONDS:
            break
    found = faults(file, command, work, result)
    tail = (work / ".err").read_bytes()[-600:].decode(errors="replace") if found else ""
    if found and keep:
        shutil.copytree(work, keep / f"case{index}", symlinks=True, ignore=lambda d, names: [n for n in names if (pathlib.Path(d) / n).is_fifo()])
    return index, file, what, command, found, tail


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--cases", type=int, default=6000 if os.environ.get("DSENGINE_FULL") == "1" else 500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--keep", type=pathlib.Path, help="leave the folders of findings here")
    options = parser.parse_args()
    binary = str(pathlib.Path(options.binary).resolve())
    begin, findings = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as scratch:
        folders = queue.Queue()
        for i in range(options.workers):
            folder = pathlib.Path(scratch) / f"worker{i}"
            folder.mkdir()
            make_fixture(binary, folder)
            shutil.copytree(folder, folder.with_suffix(".whole"), symlinks=True)
            folders.put(folder)
        table = cases()
        with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
            work = (pool.submit(run_case, i, binary, folders, table, options.keep) for i in range(options.first, options.first + options.cases))
            for future in concurrent.futures.as_completed(list(work)):
                index, file, what, command, found, tail = future.result()
                if found:
                    findings += 1
                    print(f"FAILED case {index}: {'; '.join(found)}\n  {file}: {what}\n  dsengine {' '.join(command)}\n  {tail!r}", flush=True)
    print(f"{options.cases} cases of {len(table)} kinds, {findings} findings, {time.monotonic() - begin:.0f} s")
    return findings > 0


if __name__ == "__main__":
    sys.exit(main())
