"""Adapters, in and out: lora_test.py BINARY

A LLaMA- and an OPT-shaped model get an adapter by training (SFT, then a reward model). PEFT, on the same base, must give
the saved adapter the numbers that `dsengine score` gives it (1e-4), and those are the merged directory's (1e-5). An
adapter that PEFT made and saved scores as PEFT has it, trains on, and is merged by `dsengine export`. Of the base no byte
changes. Runs in the environment of scripts/setup.
"""
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

HERE = pathlib.Path(__file__).resolve().parent
BINARY, TINY = str(pathlib.Path(sys.argv[1]).resolve()), HERE.parent.parent / "examples/tiny"
OPT = {"architectures": ["OPTForCausalLM"], "model_type": "opt", "vocab_size": 768, "hidden_size": 32, "word_embed_proj_dim": 32,
       "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128, "init_std": 0.1,
       "activation_function": "relu", "do_layer_norm_before": True, "tie_word_embeddings": True, "bos_token_id": 0,
       "eos_token_id": 1, "pad_token_id": None}
IDS = [[random.Random(n).randrange(2, 768) for _ in range(n)] for n in (2, 7, 30, 64)]


def dsengine(*arguments):
    done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def score(directory, kind, scratch):
    given, out = scratch / "ids.jsonl", scratch / "scored.jsonl"
    given.write_text("".join(json.dumps({"input_ids": i}) + "\n" for i in IDS))
    dsengine("score", "--reward" if kind == "reward" else "--model", directory, "--input", given, "--output", out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    return torch.tensor([x for line in lines for x in ([line["reward"]] if kind == "reward" else line["logprobs"])])


def score_by_peft(model, kind):
    model.eval()
    numbers = []
    with torch.no_grad():
        for ids in IDS:
            ids = torch.tensor([ids])
            logits = model(input_ids=ids).logits
            if kind == "reward":
                numbers.append(logits[0].reshape(-1)[-1:])
            else:
                numbers.append(torch.log_softmax(logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0])
    return torch.cat(numbers)


def base_of(directory, kind):
    cls = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    more = {"num_labels": 1} if kind == "reward" else {}
    return cls.from_pretrained(directory, dtype=torch.float32, **more)


def expect_close(name, a, b, tolerance):
    difference = (a - b).abs().max().item()
    assert a.shape == b.shape and difference <= tolerance, f"{name}: {difference}"
    print(f"{name}: largest difference {difference:.1e}")


def configuration(folder, base, lora):
    stage = '[[stage]]\nname = "{0}"\nalgorithm = "{0}"\nmax_steps = 5\nmini_batch_size = 8\nlearning_rate = 1e-2\neval_rows = 4\n'
    text = f'output_dir = "{folder}"\n[model]\nactor = "{base}"\ntokenizer = "{TINY}/model"\n[lora]\n{lora}\n'
    text += stage.format("sft") + f'data.sources = [{{ path = "{TINY}/data/sft.jsonl" }}]\n'
    text += stage.format("reward") + f'data.sources = [{{ path = "{TINY}/data/pairs.jsonl" }}]\n'
    config = folder.with_suffix(".toml")
    config.write_text(text)
    return config


def main():
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        for name in ("llama", "opt"):
            start, base, run = scratch / f"{name}_start", scratch / f"{name}_base", scratch / name
            start.mkdir()
            config = OPT if name == "opt" else json.loads((TINY / "model/config.json").read_text()) | {"initializer_range": 0.1}
            (start / "config.json").write_text(json.dumps(config))
            dsengine("--plugin", "sft", "--config", configuration(scratch / f"{name}_init", start, "rank = 0"),
                     "--set", "model.init=random")
            (scratch / f"{name}_init/sft/model").rename(base)
            before = (base / "model.safetensors").read_bytes()
            dsengine("run", "--config", configuration(run, base, "rank = 4\nrslora = true"))
            assert (base / "model.safetensors").read_bytes() == before
            for stage, kind in (("sft", "language"), ("reward", "reward")):
                beside, merged = score(run / stage / "adapter", kind, scratch), score(run / stage / "model", kind, scratch)
                expect_close(f"{name} {kind}: beside, merged", beside, merged, 1e-5)
                of = base if kind == "language" else run / "sft/model"
                peft = PeftModel.from_pretrained(base_of(of, kind), run / stage / "adapter")
                expect_close(f"{name} {kind}: dsengine, PEFT", beside, score_by_peft(peft, kind), 1e-4)
            assert (score(base, "language", scratch) - score(run / "sft/adapter", "language", scratch)).abs().max() > 1e-2

            made = get_peft_model(base_of(base, "language"), LoraConfig(r=8, lora_alpha=4, target_modules=["q_proj", "v_proj", "fc2", "up_proj"]))
            for key, parameter in made.named_parameters():
                if "lora_B" in key:
                    torch.nn.init.normal_(parameter, std=0.1)
            made.save_pretrained(scratch / f"{name}_peft")
            by_peft = score_by_peft(made, "language")
            expect_close(f"{name}: PEFT's own adapter", score(scratch / f"{name}_peft", "language", scratch), by_peft, 1e-4)
            dsengine("export", "--model", scratch / f"{name}_peft", "--output", scratch / f"{name}_merged")
            expect_close(f"{name}: exported", score(scratch / f"{name}_merged", "language", scratch), by_peft, 1e-4)
            assert not (scratch / f"{name}_merged/adapter_config.json").exists()
            on = scratch / f"{name}_on"
            dsengine("--plugin", "sft", "--config", configuration(on, scratch / f"{name}_peft", "rank = 0"))
            trained = PeftModel.from_pretrained(base_of(base, "language"), on / "sft/adapter")
            expect_close(f"{name}: trained on", score(on / "sft/adapter", "language", scratch), score_by_peft(trained, "language"), 1e-4)
            assert (score(on / "sft/adapter", "language", scratch) - by_peft).abs().max() > 1e-2


main()
