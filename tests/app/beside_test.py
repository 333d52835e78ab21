"""What stands beside a model: beside_test.py BINARY

Ends of turns, generation settings, a tokenizer with its template, an adapter's base: how they are found, and that they
follow a model through stages, adapters and exports. Truths are transformers' and PEFT's. Runs in the environment of
scripts/setup.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForCausalLM,
                          LlamaForSequenceClassification, PreTrainedTokenizerFast)

BINARY = str(pathlib.Path(sys.argv[1]).resolve())
END, TURN = "<|endoftext|>", "<|im_end|>"
CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
MARKED = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
          "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
BRACKETS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


def tokenizer(eos=END, template=CHATML):
    t = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    t.add_special_tokens([END, "<|im_start|>", TURN])
    made = PreTrainedTokenizerFast(tokenizer_object=t, **({"eos_token": eos} if eos else {}), pad_token=END)
    made.chat_template = template
    return made


def model(path, t, seed=0, cls=LlamaForCausalLM, **more):
    torch.manual_seed(seed)
    made = cls(LlamaConfig(vocab_size=len(t), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                           max_position_embeddings=256, initializer_range=0.2, bos_token_id=None, eos_token_id=t.eos_token_id, pad_token_id=None, **more)).eval()
    if cls is LlamaForCausalLM:
        made.generation_config.eos_token_id = t.eos_token_id
    made.save_pretrained(path), t.save_pretrained(path)
    return path


def run(*command, status=0, **more):
    p = subprocess.run([BINARY, *map(str, command)], capture_output=True, text=True, timeout=300, **more)
    assert p.returncode == status, (command, p.returncode, p.stderr[-2000:])
    return p


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def stages(folder, actor, *parts, top=""):
    """Runs stages, each (name, algorithm, data, more keys); what was said."""
    text = f'seed = 1\noutput_dir = "{folder}"\nthreads = 2\n[model]\nactor = "{actor}"\n{top}'
    for name, algorithm, data, keys in parts:
        text += f'[[stage]]\nname = "{name}"\nalgorithm = "{algorithm}"\ndata.sources = [{{ path = "{data}" }}]\n{keys}\n'
    config = folder.with_suffix(".toml")
    config.write_text(text)
    return run("run", "--config", config).stderr


def settings(folder):
    path = folder / "generation_config.json"
    return json.loads(path.read_text()) if path.exists() else None


def warnings(said, what):
    return [line for line in said.splitlines() if "warn" in line and what in line]


SFT = "max_steps = 60\nmini_batch_size = 4\nlearning_rate = 1e-2"
FEW = "max_steps = 1\nmini_batch_size = 4\nlearning_rate = 1e-4"
ROLL = FEW + "\nrollout = { batch_size = 2, samples_per_prompt = 2, max_response_length = 6%s }\nreward = { plugin = \"match\", kind = \"regex\", pattern = \"a\" }"


def ends(here):
    t = tokenizer()
    turn, end = t.convert_tokens_to_ids(TURN), t.convert_tokens_to_ids(END)
    asked = [{"role": "user", "content": "q"}]
    sft = write_lines(here / "sft.jsonl", [{"messages": asked + [{"role": "assistant", "content": "ab"}]}])
    prompts = write_lines(here / "prompts.jsonl", [{"messages": asked}, {"prompt": "r"}])
    write_lines(here / "in", [{"messages": asked}])

    # Training teaches an end that the model has not: said once, learned, and both programs stop there.
    said = stages(here / "run", model(here / "m", t), ("sft", "sft", sft, SFT), ("rl", "grpo", prompts, ROLL % ""))
    told = warnings(said, "ends stage=")
    assert len(told) == 1 and f"'{TURN}' ({turn})" in told[0] and f"'{END}' ({end})" in told[0] and "eos_token_id" in told[0], told
    for stage in ("sft", "rl"):
        assert settings(here / "run" / stage / "model")["eos_token_id"] == [end, turn], stage
    made = here / "run/sft/model"
    run("generate", "--model", made, "--input", here / "in", "--output", here / "out", "--temperature", 0, "--max-new-tokens", 20)
    answer = lines(here / "out")[0]
    assert answer["finish_reason"] == "eos" and answer["output_ids"][-1] == turn, answer
    theirs = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32)
    ids = torch.tensor([t.apply_chat_template(asked, add_generation_prompt=True).input_ids])
    assert theirs.generate(ids, do_sample=False, max_new_tokens=20, pad_token_id=0)[0, ids.shape[1]:].tolist() == answer["output_ids"]

    # A model without an end; a template whose marked answers leave their end out; an adapter.
    none = tokenizer(eos=None)
    said = stages(here / "none", model(here / "m_none", none), ("s", "sft", sft, FEW))
    assert len(warnings(said, "model=none")) == 1 and settings(here / "none/s/model")["eos_token_id"] == turn
    said = stages(here / "marked", model(here / "m_marked", tokenizer(template=MARKED)), ("s", "sft", sft, FEW))
    assert len(warnings(said, "learned=none")) == 1 and settings(here / "marked/s/model")["eos_token_id"] == end
    stages(here / "lora", here / "m", ("s", "sft", sft, FEW + "\nlora.rank = 2"))
    for folder in ("model", "adapter"):
        assert settings(here / "lora/s" / folder)["eos_token_id"] == [end, turn], folder
    run("export", "--model", here / "lora/s/adapter", "--output", here / "exported")
    assert settings(here / "exported")["eos_token_id"] == [end, turn]
    # Pairs teach the actor too; what fits is not spoken of.
    pairs = write_lines(here / "pairs.jsonl", [{"prompt": "q", "chosen": "ab", "rejected": "c"}])
    said = stages(here / "dpo", here / "m", ("s", "dpo", pairs, FEW))
    assert len(warnings(said, "ends stage=")) == 1 and settings(here / "dpo/s/model")["eos_token_id"] == [end, turn]
    fits = model(here / "m_fits", tokenizer(eos=TURN))
    said = stages(here / "fits", fits, ("s", "sft", sft, FEW), ("rl", "grpo", prompts, ROLL % ""))
    assert not warnings(said, "ends") and settings(here / "fits/s/model") == settings(fits)

    # Rollouts that run past the template's end say how to stop there.
    said = stages(here / "rl", here / "m", ("s", "grpo", prompts, ROLL % ""))
    told = warnings(said, "ends stage=")
    assert len(told) == 1 and f"rollout.stop_token_ids = [{turn}]" in told[0], told
    assert settings(here / "rl/s/model")["eos_token_id"] == end
    for n, stop in enumerate((f"stop_token_ids = [{turn}]", f'stop = ["{TURN}"]')):
        said = stages(here / f"rl{n}", here / "m", ("s", "grpo", prompts, ROLL % (", " + stop)))
        assert not warnings(said, "ends") and settings(here / f"rl{n}/s/model")["eos_token_id"] == [end, turn], said
    said = stages(here / "filters", fits, ("s", "grpo", prompts, ROLL % ", repetition_penalty = 1.2, min_p = 0.1"))
    assert len(warnings(said, "min_p and repetition_penalty")) == 1
    config = (here / "rl.toml").read_text().replace("max_response_length = 6", "max_response_length = 6, stop_token_ids = [100000]").replace(f'"{here}/rl"', f'"{here}/bad"')
    (here / "bad.toml").write_text(config)
    said = run("run", "--config", here / "bad.toml", status=1).stderr
    assert "rollout.stop_token_ids: 100000 is outside the model's vocabulary" in said, said[-300:]


def adapter_on(base, path, **more):
    torch.manual_seed(5)
    made = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
                          LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "up_proj"], **more))
    for name, parameter in made.named_parameters():
        if "lora_" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    made.save_pretrained(path)
    return made


def scored(here, folder, *more, status=0, **at):
    write_lines(here / "ids", [{"input_ids": [5, 6, 7, 80]}])
    p = run("score", "--model", folder, "--input", here / "ids", "--output", here / "scored", *more, status=status, **at)
    return p.stderr if status else torch.tensor(lines(here / "scored")[0]["logprobs"])


def by_peft(base, folder):
    made = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder).eval()
    ids = torch.tensor([[5, 6, 7, 80]])
    with torch.no_grad():
        return torch.log_softmax(made(input_ids=ids).logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]


def close(a, b):
    return torch.allclose(a, b, atol=1e-4, rtol=0)


def bases(here):
    """Where an adapter's base is found, and --base."""
    t = tokenizer(eos=TURN)
    (here / "models").mkdir()
    for n, name in enumerate(("a", "b")):
        model(here / "models" / name, t, seed=n)
    os.chdir(here)
    adapter_on("models/a", here / "out/ad")  # names models/a, as PEFT takes it: from the working directory
    truth, other = by_peft("models/a", "out/ad"), by_peft("models/b", "out/ad")
    assert not close(truth, other)
    assert close(scored(here, "out/ad"), truth)
    said = scored(here, here / "out/ad", status=1, cwd=here / "models")
    assert "models/a" in said and "--base" in said and "neither from the working directory nor beside" in said and said.count("\n") == 1, said
    for base, value in (("models/a", truth), ("models/b", other)):
        assert close(scored(here, "out/ad", "--base", base), value)
    assert close(scored(here, here / "out/ad", "--base", here / "models/a", cwd="/"), truth)
    # Beside the adapter, where the working directory has none; where both have one, PEFT's, and it is said.
    (here / "out/ad/models").mkdir()
    (here / "out/ad/models/a").symlink_to(here / "models/b")
    assert close(scored(here, here / "out/ad", cwd="/"), other)
    assert close(scored(here, "out/ad"), truth)
    p = run("score", "--model", "out/ad", "--input", "ids", "--output", "scored")
    assert len(warnings(p.stderr, "--base takes another")) == 1, p.stderr
    (here / "out/ad/models/a").unlink()
    # Every command that takes a model.
    away = {"cwd": here / "models"}
    given = ("--model", here / "out/ad", "--base", here / "models/a")
    write_lines(here / "in", [{"messages": [{"role": "user", "content": "q"}]}])
    files = ("--input", here / "in", "--output", here / "out.jsonl")
    run("generate", *given, *files, "--max-new-tokens", 3, "--temperature", 0, **away)
    run("tokenize", *given, *files, **away)
    assert lines(here / "out.jsonl")[0]["input_ids"] == t.apply_chat_template([{"role": "user", "content": "q"}], add_generation_prompt=True).input_ids
    run("chat", *given, "--max-new-tokens", 3, input="q\n", **away)
    write_lines(here / "sft.jsonl", [{"prompt": "q", "completion": "ab"}])
    run("eval", *given, "--data", here / "sft.jsonl", **away)
    run("export", *given, "--output", here / "merged", **away)
    assert close(scored(here, here / "merged"), truth)
    for command in (["generate", *files], ["export", "--output", here / "x"], ["tokenize", *files], ["eval", "--data", here / "sft.jsonl"]):
        said = run(command[0], "--model", "models/b", "--base", "models/a", *command[1:], status=1).stderr
        assert "models/b is no adapter" in said, said
    assert "is no model's directory" in scored(here, "out/ad", "--base", here / "nowhere", status=1)


def initialisations(here):
    """init_lora_weights: as PEFT loads it, or refused by name."""
    base = model(here / "base", tokenizer())
    for init in ("pissa", "olora", "gaussian", "orthogonal", "eva"):
        folder = here / init
        adapter_on(base, folder, init_lora_weights=True if init == "eva" else init)
        config = json.loads((folder / "adapter_config.json").read_text())
        if init == "eva":  # draws its first pairs from data, and leaves the base
            config.update(init_lora_weights="eva", eva_config={"rho": 2.0, "tau": 0.99})
            (folder / "adapter_config.json").write_text(json.dumps(config))
        assert config["init_lora_weights"] == init
        assert close(scored(here, folder), by_peft(base, folder)), init
    plain = here / "gaussian/adapter_config.json"
    config = json.loads(plain.read_text())
    for init in ("corda", "loftq", "lora_ga", "pissa_niter_4", "somehow"):
        plain.write_text(json.dumps({**config, "init_lora_weights": init}))
        said = scored(here, here / "gaussian", status=1)
        assert f"'{init}'" in said and "init_lora_weights" in said and said.count("\n") == 1, said


def followers(here):
    """Generation settings, tokenizer and template go along."""
    t = tokenizer()
    base = model(here / "base", t)
    own = {"eos_token_id": [256, 258], "temperature": 0.6, "top_k": 20, "do_sample": True, "max_length": 99}
    (base / "generation_config.json").write_text(json.dumps(own))
    adapter_on(base, here / "ad")
    assert not (here / "ad/tokenizer.json").exists()
    run("export", "--model", here / "ad", "--output", here / "merged")
    elsewhere = model(here / "words", tokenizer(eos=TURN, template=BRACKETS), seed=3)
    sft = write_lines(here / "sft.jsonl", [{"prompt": "q", "completion": "ab"}])
    stages(here / "on", here / "ad", ("s", "sft", sft, FEW))
    stages(here / "other", here / "ad", ("s", "sft", sft, FEW), top=f'tokenizer = "{elsewhere}"\n')
    asked = [{"role": "user", "content": "q"}]
    for made, words in (("merged", base), ("on/s/model", base), ("on/s/adapter", base), ("other/s/model", elsewhere), ("other/s/adapter", elsewhere)):
        assert settings(here / made) == own, made
        ours, theirs = AutoTokenizer.from_pretrained(here / made), AutoTokenizer.from_pretrained(words)
        assert ours.special_tokens_map == theirs.special_tokens_map, made
        assert ours.apply_chat_template(asked, add_generation_prompt=True).input_ids == theirs.apply_chat_template(asked, add_generation_prompt=True).input_ids, made
    # A stage that starts from another model than model.actor asks it in that one's words.
    stages(here / "from", base, ("s", "sft", sft, FEW + f'\nactor.from = "{elsewhere}"'))
    assert (here / "from/s/model/chat_template.jinja").read_text() == BRACKETS
    assert settings(here / "from/s/model")["eos_token_id"] == 258


def words(here):
    """A reward model with a template of its own is asked in it; so is a critic, which keeps it."""
    t = tokenizer(eos=TURN)
    actor = model(here / "actor", t)
    judge = model(here / "judge", tokenizer(eos=TURN, template=BRACKETS), seed=2, cls=LlamaForSequenceClassification, num_labels=1)
    questions = ["q", "what?", "Say a thing."]
    data = write_lines(here / "prompts.jsonl", [{"prompt": q} for q in questions])
    run("eval", "--model", actor, "--reward-model", judge, "--reward-option", "normalize=false", "--data", data, "--max-new-tokens", 8, "--temperature", 0,
        "--samples", 3, "--output", here / "eval.json")
    theirs, own = AutoModelForSequenceClassification.from_pretrained(judge, dtype=torch.float32), AutoTokenizer.from_pretrained(judge)
    for q, sample in zip(questions, json.loads((here / "eval.json").read_text())["samples"]):
        reply = sample["replies"][0]
        ids = own(f"[user]{q}{TURN}[assistant]{reply}", add_special_tokens=False).input_ids
        values = [theirs(input_ids=torch.tensor([i])).logits.item() for i in (ids, ids + own(TURN).input_ids)]  # cut off, or ended
        assert min(abs(v - sample["rewards"][0]) for v in values) < 1e-4, (sample, values)
    said = stages(here / "run", actor, ("ppo", "ppo", data, (ROLL % "").replace('plugin = "match", kind = "regex", pattern = "a"', f'from = "{judge}"')))
    assert said.count("asked by its own chat template") == 1, said[-2000:]
    assert (here / "run/ppo/critic/chat_template.jinja").read_text() == BRACKETS
    assert (here / "run/ppo/model/chat_template.jinja").read_text() == CHATML


for check in (ends, bases, initialisations, followers, words):
    with tempfile.TemporaryDirectory() as scratch:
        check(pathlib.Path(scratch))
        os.chdir("/")
    print("ok:", check.__name__)
