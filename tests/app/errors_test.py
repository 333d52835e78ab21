"""Bad input gets one clear line and a non-zero exit, and leaves nothing half-written: errors_test.py BINARY TESTS_BUILD_DIR

Each case is a command and what its one error line must say. Every run is held to: exit status 1, a single line
"dsengine: error: …" at the end of standard error, no crash, no word of an internal error.
"""
import gzip
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

BINARY, BUILD = str(pathlib.Path(sys.argv[1]).resolve()), pathlib.Path(sys.argv[2]).resolve()
GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
TINY = pathlib.Path(__file__).resolve().parent.parent.parent / "examples/tiny"
failures = []
count = 0


def check(name, command, expected, stdin="", status=1):
    global count
    count += 1
    p = subprocess.run([BINARY, *map(str, command)], input=stdin, capture_output=True, text=True, timeout=120)
    error_lines = [line for line in p.stderr.splitlines() if line.startswith("dsengine: ")]
    wrong = None
    if p.returncode != status:
        wrong = f"exit {p.returncode}, expected {status}"
    elif len(error_lines) != 1 or p.stderr.splitlines()[-1] != error_lines[0]:
        wrong = "not one error line at the end"
    elif "internal error" in error_lines[0]:
        wrong = "an internal error"
    else:
        missing = [e for e in ([expected] if isinstance(expected, str) else expected) if e not in error_lines[0]]
        if missing:
            wrong = f"the line does not say {missing}"
    if wrong:
        failures.append(name)
        print(f"FAILED {name}: {wrong}\n  {' '.join(map(str, command))}\n  {p.stderr[-700:]}")


def run_with(work, name, expected, toml=None, sets=(), **files):
    """A run whose configuration or files are wrong; no model directory may come of it."""
    folder = work / f"run{count}"
    folder.mkdir()
    for file, content in files.items():
        path = folder / file.replace("_jsonl", ".jsonl").replace("_gz", ".gz")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    config = folder / "run.toml"
    config.write_text(toml if toml is not None else BASE)
    command = ["run", "--config", config, "--set", f"output_dir={folder}/out"]
    for s in sets:
        command += ["--set", s.replace("FOLDER", str(folder))]
    check(name, command, expected)
    left = list(folder.glob("out/*/model")) + list(folder.glob("out/**/.*"))
    if left:
        failures.append(name)
        print(f"FAILED {name}: left behind {left}")


BASE = f"""
[model]
actor = "{TINY}/model"
init = "random"
[[stage]]
name = "sft"
algorithm = "sft"
max_steps = 1
mini_batch_size = 2
data.sources = [{{ path = "{TINY}/data/sft.jsonl" }}]
"""


def configurations(work):
    bad = lambda name, expected, *sets: run_with(work, name, expected, sets=sets)
    run_with(work, "not TOML", ["run.toml:2"], toml="a = 1\nb = = 2\n")
    run_with(work, "misspelt key", ["run.toml", "learning_rat", "learning_rate"], toml=BASE + "learning_rat = 1\n")
    run_with(work, "wrong type", ["run.toml", "max_steps"], toml=BASE.replace("max_steps = 1", 'max_steps = "one"'))
    run_with(work, "out of range", ["mini_batch_size"], toml=BASE.replace("mini_batch_size = 2", "mini_batch_size = 0"))
    run_with(work, "no stage", "stage", toml="seed = 1\n")
    bad("misspelt key of --set", ["learning_rat", "learning_rate"], "learning_rat=1e-3")
    bad("a --set without a value", "seed", "seed")
    bad("unknown algorithm", ["'sfd'", "sft"], "stage.sft.algorithm=sfd")
    bad("unknown plugin option", ["kl_coeff", "kl_coef"], "stage.sft.algorithm=ppo", "stage.sft.plugin.ppo.kl_coeff=0.1")
    bad("plugin option out of range", ["gamma"], "stage.sft.algorithm=ppo", "stage.sft.plugin.ppo.gamma=2")
    bad("options of another plugin", ["plugin.ppo"], "stage.sft.plugin.ppo.gamma=1")
    bad("no such model", ["nowhere"], "model.actor=/nowhere")
    bad("no such data", ["/nowhere.jsonl"], 'stage.sft.data.sources=[{path="/nowhere.jsonl"}]')
    bad("unknown reader", ["'csv'"], f'stage.sft.data.sources=[{{path="{TINY}/data/sft.jsonl", reader="csv"}}]')
    bad("unknown reader option", ["prompt_feld", "prompt_field"],
        f'stage.sft.data.sources=[{{path="{TINY}/data/sft.jsonl", prompt_feld="x"}}]')
    bad("records too long", ["max_length"], "data.max_length=3")
    bad("records that are no pairs", ["pairs", "record 1"], "stage.sft.algorithm=reward")
    bad("a split with too few parts", ["data.split", "2 parts", "part 3"], "data.split=[1,1]", "data.part=3")
    bad("a part without a split", ["data.part", "data.split"], "data.part=2")
    bad("a part of share 0", ["data.split", "share 0"], "data.split=[0,1]")
    bad("an empty part", ["sft.jsonl", "part 1", "empty"], "data.split=[1e-12,1]")
    bad("a negative share", ["data.split[0]", "at least 0"], "data.split=[-1,1]")
    bad("uneven pairs", ["mini_batch_size", "even"], "stage.sft.algorithm=reward", "mini_batch_size=3",
        f'stage.sft.data.sources=[{{path="{TINY}/data/pairs.jsonl"}}]')
    bad("PPO without a reward model", ["reward"], "stage.sft.algorithm=ppo")
    bad("from a later stage", ["'sft'", "neither"], "stage.sft.actor.from=later")
    bad("output_dir is a file", ["output_dir"], "output_dir=FOLDER/run.toml")
    later = BASE + f"""
[[stage]]
name = "later"
algorithm = "reward"
data.sources = [{{ path = "/nowhere/pairs.jsonl" }}]
"""
    run_with(work, "a later stage's data is missing", "/nowhere/pairs.jsonl", toml=later)
    bad("a language model as the reward", ["score.weight"], "stage.sft.algorithm=ppo", f"model.actor={GOLDEN}/llama_gqa",
        "model.init=pretrained", f"model.tokenizer={TINY}/model", f"stage.sft.reward.from={GOLDEN}/llama_gqa",
        f"stage.sft.critic.from={GOLDEN}/llama_reward")
    bad("a tokenizer of another model", ["vocabulary"], f"model.actor={GOLDEN}/llama_gqa", "model.init=pretrained",
        f"model.tokenizer={TINY}/model")
    long = json.dumps({"prompt": "word " * 150, "completion": "b"}) + "\n"
    run_with(work, "a record longer than the model", ["positions", "max_length"],
             sets=['stage.sft.data.sources=[{path="FOLDER/data.jsonl"}]'], data_jsonl=long)
    run_with(work, "records of weight 0 alone", "weight", sets=['stage.sft.data.sources=[{path="FOLDER/data.jsonl"}]'],
             data_jsonl='{"prompt": "a", "completion": "b", "weight": 0}\n')
    match = 'plugin="match", kind="regex", pattern="a"'
    ppo = ("stage.sft.algorithm=ppo", f"stage.sft.critic.from={GOLDEN}/llama_reward")
    bad("an adapter's keys without a rank", ["lora.rank is 0"], "lora.targets=['q']")
    bad("an adapter's target that is none", ["lora.targets[1]", "zz"], "lora.rank=4", "lora.targets=['q','zz']")
    bad("an adapter for a role the model lacks", ["linear"], "lora.rank=4", "lora.targets=['linear']")
    bad("texts without a coefficient", ["ptx.coefficient"], f'stage.sft.ptx.sources=[{{path="{TINY}/data/sft.jsonl"}}]')
    bad("a coefficient without texts", ["ptx.sources"], "stage.sft.ptx.coefficient=1")
    bad("target_kl of no rollout", ["target_kl"], "target_kl=0.1")
    bad("reward and rewards", ["rewards"], *ppo, "stage.sft.reward.weight=2", f"stage.sft.rewards=[{{{match}}}]")
    bad("two rewards of a name", ["'match'"], *ppo, f"stage.sft.rewards=[{{{match}}}, {{{match}}}]")
    bad("a reward named as a metric", ["'failed'"], *ppo, f'stage.sft.rewards=[{{name="failed", {match}}}]')
    bad("a reward that reads no model", ["from"], *ppo, f'stage.sft.rewards=[{{from="{GOLDEN}/llama_reward", {match}}}]')
    bad("dynamic sampling of one answer", ["samples_per_prompt"], *ppo, "stage.sft.rollout.dynamic_sampling=true")
    check("options of a plugin that --plugin chose", ["--plugin", "grpo", "--set", "plugin.grpo.nonsense=1", "--set",
                                                    f"output_dir={work}/none"], ["nonsense", "grpo"])
    check("groups of one", ["--plugin", "grpo", "--set", f"output_dir={work}/none"], "samples_per_prompt")
    check("no such configuration", ["run", "--config", "/nowhere.toml"], "/nowhere.toml")
    check("unknown command line option", ["run", "--confg", "x"], "--confg")
    check("unknown command", ["trian"], "trian")
    check("no algorithm of that name", ["--plugin", "pqo", "--set", f"output_dir={work}/none"], ["'pqo'", "ppo"])


def records(work):
    source = ['stage.sft.data.sources=[{path="FOLDER/data.jsonl"}]']
    bad = lambda name, expected, content: run_with(work, name, expected, sets=source, data_jsonl=content)
    good = json.dumps({"prompt": "a", "completion": "b"}) + "\n"
    bad("empty file", ["data.jsonl", "no records"], "")
    bad("blank lines alone", ["data.jsonl", "no records"], "\n  \n")
    bad("malformed JSON", ["data.jsonl:2"], good + '{"prompt": "a", "completion"\n')
    bad("not an object", ["data.jsonl:1", "object"], "[1, 2]\n")
    bad("not UTF-8", ["data.jsonl:2"], good.encode() + b'{"prompt": "\xff\xfe", "completion": "b"}\n')
    bad("missing field", ["data.jsonl:1"], '{"completion": "b"}\n')
    bad("field of the wrong type", ["data.jsonl:1", "completion"], '{"prompt": "a", "completion": 3}\n')
    bad("messages of the wrong type", ["data.jsonl:1", "messages"], '{"messages": "hello"}\n')
    bad("a conversation without an answer", ["data.jsonl", "record 2", "assistant"],
        good + '{"messages": [{"role": "user", "content": "x"}]}\n')
    bad("an unknown role", ["robot", "data.jsonl", "record 1"], '{"messages": [{"role": "robot", "content": "x"}, {"role": "assistant", "content": "y"}]}\n')
    bad("a zero byte", ["data.jsonl:1", "zero"], '{"prompt": "a\\u0000b", "completion": "b"}\n')
    bad("deep nesting", ["data.jsonl:1"], '{"prompt": "a", "completion": "b", "x": ' + "[" * 100000 + "]" * 100000 + "}\n")
    bad("a negative weight", ["data.jsonl:1", "weight"], '{"prompt": "a", "completion": "b", "weight": -1}\n')
    bad("one answer ranked", ["data.jsonl:2", "two ranks"], good + '{"prompt": "a", "ranked": ["b"]}\n')
    bad("a ranked answer that is no text", ["data.jsonl:1", "ranked", "string"], '{"prompt": "a", "ranked": ["b", 1]}\n')
    text = ['stage.sft.data.sources=[{path="FOLDER/data.jsonl", reader="text"}]']
    run_with(work, "text that is not UTF-8", ["data.jsonl", "byte 4"], sets=text, data_jsonl=b"abc \xff")
    run_with(work, "text with a zero byte", ["data.jsonl", "byte 1", "zero"], sets=text, data_jsonl=b"a\0b")
    run_with(work, "empty text", ["data.jsonl", "no text"], sets=text, data_jsonl="")
    whole = gzip.compress((good * 200).encode())
    run_with(work, "truncated gzip", ["data.jsonl.gz"], sets=['stage.sft.data.sources=[{path="FOLDER/data.jsonl.gz"}]'],
             data_jsonl_gz=whole[: len(whole) // 2])


def weights(work):
    ids = work / "ids.jsonl"
    ids.write_text('{"input_ids": [5, 6, 7]}\n')

    def bad(name, expected, change):
        folder = work / f"model{count}"
        shutil.copytree(GOLDEN / "llama_gqa", folder)
        change(folder)
        check(name, ["score", "--model", folder, "--input", ids, "--output", work / "out.jsonl"], expected)
        if (work / "out.jsonl").exists():
            failures.append(name)
            print(f"FAILED {name}: wrote its output")

    def rewrite(change):  # header of model.safetensors as JSON
        def apply(folder):
            path = folder / "model.safetensors"
            data = path.read_bytes()
            size = struct.unpack("<Q", data[:8])[0]
            header = json.loads(data[8 : 8 + size])
            change(header)
            text = json.dumps(header).encode()
            path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
        return apply

    def config(**changes):
        def apply(folder):
            text = json.loads((folder / "config.json").read_text())
            for key, value in changes.items():
                text.pop(key) if value is None else text.update({key: value})
            (folder / "config.json").write_text(json.dumps(text))
        return apply

    file = lambda f: f / "model.safetensors"
    bad("truncated weights", "model.safetensors", lambda f: file(f).write_bytes(file(f).read_bytes()[:-100]))
    bad("weights cut in the header", "model.safetensors", lambda f: file(f).write_bytes(file(f).read_bytes()[:50]))
    bad("empty weights", "model.safetensors", lambda f: file(f).write_bytes(b""))
    bad("trailing bytes", "model.safetensors", lambda f: file(f).write_bytes(file(f).read_bytes() + b"x"))
    bad("no weights", "model.safetensors", lambda f: file(f).unlink())
    bad("no config.json", "config.json", lambda f: (f / "config.json").unlink())
    bad("config.json cut", "config.json", lambda f: (f / "config.json").write_text('{"architectures": ['))
    bad("unknown architecture", "MambaForCausalLM", config(architectures=["MambaForCausalLM"]))
    bad("no architecture", "architectures", config(architectures=None))
    bad("a missing key", "num_hidden_layers", config(num_hidden_layers=None))
    bad("a key of the wrong type", "hidden_size", config(hidden_size="large"))
    bad("other shapes", ["shape", "[97, 24]"], config(vocab_size=96))
    bad("more layers than weights", ["missing", "model.layers.2."], config(num_hidden_layers=3))
    bad("fewer layers than weights", ["does not declare", "model.layers.1."], config(num_hidden_layers=1))
    bad("no heads", "num_attention_heads", config(num_attention_heads=0))
    bad("a number beyond all", "config.json", lambda f: (f / "config.json").write_text('{"architectures": 1e999}'))
    bad("heads that do not divide", "key-value heads", config(num_key_value_heads=3))
    # What says how to compute is read or refused by name, never passed over.
    bad("a scaling that is none", ["config.json", "rope_scaling", "object"], config(rope_scaling=7))
    bad("a scaling that is a list", ["config.json", "rope_scaling", "object"], config(rope_scaling=[1]))
    bad("a scaling's type that is none", ["rope_scaling.rope_type", "string"], config(rope_scaling={"rope_type": 7, "factor": 2}))
    bad("a factor of 0", ["rope_scaling.factor", "above 0"], config(rope_scaling={"rope_type": "linear", "factor": 0}))
    bad("frequencies with null", ["rope_scaling.long_factor.1", "null"],
        config(rope_scaling={"rope_type": "longrope", "long_factor": [1, None, 1], "short_factor": [1, 1, 1], "original_max_position_embeddings": 64}))
    bad("a theta of 0", ["rope_theta", "above 0"], config(rope_parameters={"rope_theta": 0}))
    bad("a negative theta", ["rope_theta", "above 0"], config(rope_parameters=None, rope_theta=-10000.0))
    bad("a negative eps", ["rms_norm_eps", "at least 0"], config(rms_norm_eps=-1e-6))
    bad("an eps that is a text", ["rms_norm_eps", "number"], config(rms_norm_eps="1e-6"))
    bad("positions that are no number", ["max_position_embeddings", "whole number"], config(max_position_embeddings="64"))
    bad("half a position", ["max_position_embeddings", "whole number"], config(max_position_embeddings=64.5))
    bad("causal by another word", ["is_causal", "no"], config(is_causal="no"))
    bad("a pad token by name", ["pad_token_id", "<pad>"], config(pad_token_id="<pad>"))
    bad("end tokens with null", ["eos_token_id", "null"], config(eos_token_id=[1, None]))
    bad("a tied head by a number", ["tie_word_embeddings", "true or false"], config(tie_word_embeddings=1))
    # Bounded by the weights, before anything is allocated; and at most 200 characters of a value are shown.
    bad("a billion layers", ["config.json", "more than 10000 layers"], config(num_hidden_layers=10**9))
    bad("a width of billions", ["shape", "[97, 24]"], config(hidden_size=2**30, head_dim=8))
    bad("a width beyond all", ["hidden_size", "2147483647"], config(hidden_size=2**62))
    bad("heads of a billion dimensions", ["head of"], config(head_dim=10**9))
    bad("a long value", ["hidden_size", "…"], config(hidden_size="x" * 100_000))
    bad("overlapping tensors", "model.safetensors", rewrite(lambda h: h["model.norm.weight"].update(data_offsets=[0, 96])))
    bad("a tensor outside the file", "model.safetensors",
        rewrite(lambda h: h["model.norm.weight"].update(data_offsets=[10**12, 10**12 + 96])))
    bad("a dtype that lies", ["model.safetensors", "model.norm.weight"],
        rewrite(lambda h: h["model.norm.weight"].update(dtype="F16")))
    bad("a shape that lies", ["model.safetensors", "model.norm.weight"],
        rewrite(lambda h: h["model.norm.weight"].update(shape=[2**62, 2**62])))

    def twice(folder):
        data = file(folder).read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header = data[8 : 8 + size].decode().rstrip()
        first = header[1 : header.index("}") + 1]  # "name":{...}
        header = (header[:-1] + "," + first + "}").encode()
        file(folder).write_bytes(struct.pack("<Q", len(header)) + header + data[8 + size :])
    bad("a tensor named twice", ["model.safetensors", "twice"], twice)

    def outside(folder):
        names = [name for name in json.loads((GOLDEN / "llama_gqa_sharded/model.safetensors.index.json").read_text())["weight_map"]]
        shutil.copy(file(folder), folder.parent / "outside.safetensors")
        file(folder).unlink()
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": {name: "../outside.safetensors" for name in names}}))
    bad("a weight_map that leaves the directory", ["model.safetensors.index.json", "../outside.safetensors"], outside)
    deep = '{"architectures": ' + "[" * 100_000 + "]" * 100_000 + "}"
    bad("a config 100,000 deep", ["config.json", "nested deeper"], lambda f: (f / "config.json").write_text(deep))
    bad("a header 100,000 deep", ["model.safetensors", "nested deeper"],
        lambda f: file(f).write_bytes(struct.pack("<Q", len(deep)) + deep.encode()))
    pickles = GOLDEN / "bins"
    for malicious in sorted(pickles.glob("malicious*.bin")):
        def use(folder, malicious=malicious):
            file(folder).unlink()
            shutil.copy(malicious, folder / "pytorch_model.bin")
        bad(f"pickle that calls ({malicious.name})", "pytorch_model.bin", use)
    if not sorted(pickles.glob("malicious*.bin")):
        failures.append("the malicious pickles are missing")


def not_finite(work):
    """Weights that hold NaN or infinity: the row's error, never null."""
    global count
    for name, number in (("NaN", float("nan")), ("infinity", float("inf"))):
        for source, option in (("llama_gqa", "--model"), ("llama_reward", "--reward")):
            folder = work / f"{source}{name}"
            shutil.copytree(GOLDEN / source, folder)
            path = folder / "model.safetensors"
            data = bytearray(path.read_bytes())
            size = struct.unpack("<Q", data[:8])[0]
            begin = json.loads(data[8 : 8 + size])["model.norm.weight"]["data_offsets"][0] + 8 + size
            data[begin : begin + 4] = struct.pack("<f", number)
            path.write_bytes(data)
            for command in ["score"] if option == "--reward" else ["score", "generate"]:
                count += 1
                extra = ["--max-new-tokens", "4"] if command == "generate" else []
                p = subprocess.run([BINARY, command, option, folder, *extra], input='{"input_ids": [5, 6, 7]}\n{"input_ids": [97]}\n', capture_output=True, text=True)
                rows = [json.loads(line) for line in p.stdout.splitlines()]
                if p.returncode != 1 or len(rows) != 2 or "not finite" not in rows[0].get("error", "") or "no id" not in rows[1].get("error", ""):
                    failures.append(f"{name} in {command} {option}")
                    print(f"FAILED {name} in {command} {option}: exit {p.returncode}, {p.stdout}{p.stderr}")


def numbers(work):
    """Counts whose sums would overflow, and reals that are none."""
    ids = work / "ids.jsonl"
    ids.write_text('{"input_ids": [5, 6, 7]}\n')
    model = ["--model", GOLDEN / "llama_gqa", "--input", ids]
    for option in ("--max-new-tokens", "--top-k", "--n", "--slots"):
        for number in (2**63 - 1, 2**63, 2**64, 2**31, -1):
            check(f"{option} {number}", ["generate", *model, option, number], option)
    for option in ("--temperature", "--top-p", "--min-p", "--repetition-penalty"):
        for number in ("nan", "-1", "1e999", "0x"):
            check(f"{option} {number}", ["generate", *model, option, number], option)
    check("--seed beyond 64 bits", ["generate", *model, "--seed", 2**64], "--seed")
    check("--threads beyond 63 bits", ["score", *model, "--threads", 2**63], "--threads")
    for size in ("nan", "1e30GB", "-1", "5XB", ""):
        check(f"--shard-size {size}", ["export", "--model", GOLDEN / "llama_gqa", "--output", work / "out", "--shard-size", size], "--shard-size")
    for key in ("--rows", "--samples", "--max-new-tokens"):
        check(f"eval {key}", ["eval", "--model", TINY / "model", "--data", TINY / "data/sft.jsonl", key, 2**63 - 1], key)
    p = subprocess.run([BINARY, "score", *map(str, model), "--threads", "2147483647"], capture_output=True, text=True)
    if p.returncode != 0 or "threads event=capped asked=2147483647" not in p.stderr:
        failures.append("threads beyond the cores")
        print(f"FAILED threads beyond the cores: exit {p.returncode}, {p.stderr}")


def devices(work):
    """A device that there is not."""
    ids = work / "device_ids.jsonl"
    ids.write_text('{"input_ids": [5, 6, 7]}\n')
    score = ["score", "--model", GOLDEN / "llama_gqa", "--input", ids]
    for name in ("tpu", "", "cuda:", "cuda:-1", "cuda:1x", "cuda:200", "CUDA"):
        check(f"--device '{name}'", [*score, "--device", name], ["device", "cpu, cuda"])
    run_with(work, "device = tpu", ["'tpu'", "cpu, cuda"], sets=["device=tpu"])
    if pathlib.Path("/dev/nvidiactl").exists():
        print("SKIPPED a card is asked for where there is none: this machine has one")
        return
    for command in (score, ["generate", *score[1:]], ["eval", "--model", TINY / "model", "--data", TINY / "data/sft.jsonl"],
                    ["chat", "--model", TINY / "model"]):
        check(f"{command[0]} --device cuda", [*command, "--device", "cuda"], "device 'cuda': no graphics card can be used")
    run_with(work, "device = cuda:1", "no graphics card can be used", sets=["device=cuda:1"])
    alone, auto = (subprocess.run([BINARY, *map(str, score), *more], capture_output=True, text=True)
                   for more in ([], ["--device", "auto"]))
    if alone.returncode != 0 or alone.stdout != auto.stdout:
        failures.append("--device auto")
        print(f"FAILED --device auto: {auto.stderr}")


def places(work):
    """What stands in the place of a model's file: one line each, nothing waited for."""
    global count
    text = work / "text.jsonl"
    text.write_text('{"text": "hello"}\n')
    kinds = {"a pipe": lambda p: os.mkfifo(p), "a device": lambda p: p.symlink_to("/dev/zero"), "a loop": lambda p: p.symlink_to(p.name),
             "a lost link": lambda p: p.symlink_to("/nowhere"), "a folder": lambda p: p.mkdir(), "a read error": lambda p: p.symlink_to("/proc/self/mem")}
    for kind, put in kinds.items():
        for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "generation_config.json", "config.json"):
            folder = work / f"{kind} {file}".replace(" ", "_")
            shutil.copytree(TINY / "model", folder)
            (folder / file).unlink(missing_ok=True)
            put(folder / file)
            check(f"{kind} as {file}", ["tokenize", "--model", folder, "--input", text], file)
        for file in ("config.json", "model.safetensors"):
            folder = work / f"{kind} of a model {file}".replace(" ", "_")
            shutil.copytree(GOLDEN / "llama_gqa", folder)
            (folder / file).unlink()
            put(folder / file)
            check(f"{kind} as a model's {file}", ["score", "--model", folder, "--input", text], file)
        folder = work / f"{kind} records".replace(" ", "_")
        folder.mkdir()
        for file in ("data.jsonl", "data.jsonl.gz"):
            put(folder / file)
            run_with(work, f"{kind} as {file}", file, sets=[f'stage.sft.data.sources=[{{path="{folder / file}"}}]'])
        put(folder / "run.toml")
        check(f"{kind} as the configuration", ["run", "--config", folder / "run.toml"], "run.toml")


def exports(work):
    """Links of a model's directory are not copied out, but for what was read as what its name says."""
    global count
    folder, out = work / "model", work / "out"
    shutil.copytree(GOLDEN / "llama_gqa", folder)
    shutil.copy(TINY / "model/tokenizer.json", folder)
    (work / "secret").write_text("user password\ntop secret\n")
    (work / "secret.json").write_text('{"auths": {"registry": "top secret"}}')
    for file in ("merges.txt", "tokenizer.model", "chat_template.jinja"):
        (folder / file).symlink_to(work / "secret")
    for file in ("vocab.json", "special_tokens_map.json", "generation_config.json"):
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(work / "secret.json")
    (work / "blob").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (folder / "tokenizer_config.json").symlink_to(work / "blob")
    p = subprocess.run([BINARY, "export", "--model", folder, "--output", out], capture_output=True, text=True)
    count += 1
    written = sorted(path.name for path in out.rglob("*"))
    if p.returncode != 0 or written != ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] or p.stderr.count("file_left_out") != 6 \
            or (out / "tokenizer_config.json").is_symlink() or "top secret" in p.stderr:
        failures.append("links in a model's directory")
        print(f"FAILED links in a model's directory: exit {p.returncode}, {written}, {p.stderr}")


def terminals(work):
    """Escape sequences of a model or a template do not reach the terminal."""
    global count
    folder = work / "model"
    shutil.copytree(TINY / "model", folder)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('\x1b[2J\x9b31m\u009b32m') }}")
    p = subprocess.run([BINARY, "tokenize", "--model", folder], input=b'{"messages": [{"role": "user", "content": "x"}]}\n', capture_output=True)
    count += 1
    said = p.stdout + p.stderr
    if p.returncode != 1 or b"\x1b" in said or b"\xc2\x9b" in said or b"\x9b" in said.replace(b"\xc2", b""):
        failures.append("escapes of a template")
        print(f"FAILED escapes of a template: {said}")
    check("escapes of a name", ["plugins", "info", "\x1b[2Jx\u009b"], "?[2Jx?")


def tokenizers(work):
    global count
    text = work / "text.jsonl"
    text.write_text('{"text": "hello"}\n')

    def bad(name, expected, change):
        folder = work / f"tokenizer{count}"
        shutil.copytree(TINY / "model", folder)
        change(folder / "tokenizer.json")
        check(name, ["tokenize", "--model", folder, "--input", text], expected)

    bad("no tokenizer", "tokenizer.json", lambda f: f.unlink())
    bad("truncated tokenizer", "tokenizer.json", lambda f: f.write_text(f.read_text()[:1000]))
    bad("a tokenizer of another kind", ["tokenizer.json", "WordPiece"],
        lambda f: f.write_text(f.read_text().replace('"BPE"', '"WordPiece"')))
    # A record that fails is told in its row; the others are answered.
    conversation = '{"messages": [{"role": "user", "content": "hello"}]}\n{"text": "hello"}\n'
    for name, expected, source in [
            ("an endless template", ":1: the chat template fails: ",
             "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}"),
            ("a template without end", ":1: the chat template fails: ",
             "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
            ("a template that is none", ":2: ", "{{ bos_token }}\n{% for m in messages %}")]:
        folder = work / f"tokenizer{count}"
        shutil.copytree(TINY / "model", folder)
        (folder / "chat_template.jinja").write_text(source)
        p = subprocess.run([BINARY, "tokenize", "--model", folder], input=conversation, capture_output=True, text=True)
        count += 1
        rows = [json.loads(line) for line in p.stdout.splitlines()]
        if p.returncode != 1 or len(rows) != 2 or f"{folder}/chat_template.jinja{expected}" not in rows[0]["error"]:
            failures.append(name)
            print(f"FAILED {name}: exit {p.returncode}, {p.stdout}{p.stderr}")
    check("no input file", ["tokenize", "--model", TINY / "model", "--input", "/nowhere"], "/nowhere")
    check("an output that cannot be", ["tokenize", "--model", TINY / "model", "--output", "/nowhere/x"], "/nowhere", stdin="{}\n")
    check("an empty stop", ["generate", "--model", TINY / "model", "--stop", ""], "")
    check("empty input", ["tokenize", "--model", TINY / "model"], "no JSON lines")


    # A prompt that the model cannot take is told in its row; the others are answered.
    p = subprocess.run([BINARY, "generate", "--model", GOLDEN / "phi3_longrope", "--max-new-tokens", "10"], text=True,
                       input=''.join(json.dumps({"input_ids": [5] * n}) + "\n" for n in (20, 95, 120)), capture_output=True)
    count += 1
    rows = [json.loads(line) for line in p.stdout.splitlines()]
    if p.returncode != 1 or [("output_ids" in r) for r in rows] != [True, False, True] or "cross the length of 100" not in rows[1]["error"]:
        failures.append("a prompt that crosses longrope's length")
        print(f"FAILED a prompt that crosses longrope's length: exit {p.returncode}, {p.stdout}{p.stderr}")


def plugins(work):
    expected = {"wrong_major": "built for ABI 2.", "newer_minor": "newer", "zero_size": "struct_size", "no_symbol": "dse_plugin_entry",
                "fails": "", "fails_silently": "no reason", "null_plugin": "", "null_items": "", "null_table": "",
                "no_open": "", "bad_default": "", "empty_name": "", "unknown_kind": "", "duplicate": "", "long_nonzero": "",
                "throws": "C++ exception"}
    for name, words in expected.items():
        file = BUILD / f"tests/abi/libdse_{name}.so"
        run_with(work, f"plugin {name}", [f"libdse_{name}.so", words], sets=[f'plugins=[{{file="{file}"}}]'])
    text = work / "libdse_text.so"
    text.write_text("this is not a library\n")
    run_with(work, "plugin that is no ELF file", ["libdse_text.so", "ELF"], sets=[f'plugins=[{{file="{text}"}}]'])
    run_with(work, "no such plugin file", "/nowhere.so", sets=['plugins=[{file="/nowhere.so"}]'])
    whole = BUILD / "tests/abi/libdse_whole.so"
    run_with(work, "wrong sha256", ["libdse_whole.so", "sha256"], sets=[f'plugins=[{{file="{whole}", sha256="{"0" * 64}"}}]'])
    check("no such plugin folder", ["plugins", "--plugin-path", "/nowhere", "list"], "/nowhere")
    check("no item of that name", ["plugins", "info", "pqo"], ["pqo", "ppo"])


def used_directories(work):
    folder = work / "used"
    base = work / "base.toml"
    base.write_text(BASE)
    done = subprocess.run([BINARY, "run", "--config", base, "--set", f"output_dir={folder}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = ["run", "--config", base, "--set", f"output_dir={folder}"]
    check("another run's folder", [*again, "--set", "learning_rate=0.5"], ["learning_rate", "other settings"])
    check("resume = never", [*again, "--set", "resume=never"], ["output_dir", "resume"])
    inputs = (folder / "sft/inputs.json").read_text()
    (folder / "sft/inputs.json").write_text(inputs.replace("actor", "actar"))
    (folder / "sft/done.json").unlink()
    check("inputs.json changed", again, ["inputs.json", "has changed"])
    (folder / "sft/inputs.json").unlink()
    check("inputs.json missing", again, ["inputs.json", "missing", "--accept-changes"])
    (folder / "sft/inputs.json").write_text(inputs)
    checkpoint = next((folder / "sft/checkpoints").glob("step-*"))
    (checkpoint / "manifest.json").write_text("{}")
    check("a damaged checkpoint", again, "manifest.json")


def lines(work):
    """A line that cannot be done gives its error in its place; the others are done."""
    model = GOLDEN / "llama_gqa"
    given = ['{"input_ids": [5, 6]}', '{"input_ids": [5, 97]}', "not JSON", '{"input_ids": []}', '{"text": "no tokenizer"}',
             '{"input_ids": [7]}', '[]', '{"input_ids": [5, "6"]}']
    global count
    for command, wrong in ((["score"], [1, 2, 4, 6, 7]),  # no tokens have no log-probabilities
                           (["generate", "--max-new-tokens", "4", "--temperature", "0"], [1, 2, 3, 4, 6, 7])):
        count += 1
        p = subprocess.run([BINARY, *command, "--model", str(model)], input="\n".join(given) + "\n", capture_output=True, text=True)
        out = [json.loads(line) for line in p.stdout.splitlines()]
        bad = [i for i, o in enumerate(out) if "error" in o]
        if p.returncode == 0 or bad != wrong or f"{len(wrong)} of 8 lines" not in p.stderr:
            failures.append("lines")
            print(f"FAILED lines of {command}: exit {p.returncode}, errors at {bad}\n{p.stdout}\n{p.stderr}")
    template = work / "template"
    shutil.copytree(TINY / "model", template)
    (template / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    p = subprocess.run([BINARY, "tokenize", "--model", str(template)], input='{"messages": [{"role": "user", "content": "x"}]}\n{"text": "x"}\n',
                       capture_output=True, text=True)
    out = [json.loads(line) for line in p.stdout.splitlines()]
    if p.returncode == 0 or "template" not in out[0].get("error", "") or "input_ids" not in out[1]:
        failures.append("template")
        print(f"FAILED template: {p.stdout} {p.stderr}")


with tempfile.TemporaryDirectory() as scratch:
    for part in (configurations, records, weights, not_finite, numbers, devices, places, exports, terminals, tokenizers, plugins, used_directories, lines):
        folder = pathlib.Path(scratch) / part.__name__
        folder.mkdir()
        part(folder)
print(f"{count} cases, {len(failures)} failed")
sys.exit(bool(failures))
