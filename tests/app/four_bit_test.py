"""QLoRA from outside and back: four_bit_test.py BINARY

A base that transformers and bitsandbytes keep in NF4 with double quantisation, and an adapter on it that PEFT made, score
as they do: on the weights that bitsandbytes unpacks within 1e-4, by its own kernels, which compute in bfloat16, within
5e-2. Training on such a base gives the
same bits whether its weights are unpacked once or kept in NF4 (lora.base), for what bitsandbytes rounded is a code
already; the adapter means to PEFT what it means to the engine, and the merged model is a plain one. Runs in the
environment of scripts/setup.
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

os.environ["TORCHDYNAMO_DISABLE"] = "1"

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

BINARY = str(pathlib.Path(sys.argv[1]).resolve())
# Rows of whole blocks: of others bitsandbytes' kernels for the CPU (0.50.2) multiply by another block's scale.
SHAPE = dict(vocab_size=97, hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.1)
IDS = [[random.Random(n).randrange(3, 97) for _ in range(n)] for n in (2, 7, 30, 64)]


def dsengine(*arguments):
    done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def score(directory, scratch):
    given, out = scratch / "ids.jsonl", scratch / "scored.jsonl"
    given.write_text("".join(json.dumps({"input_ids": i}) + "\n" for i in IDS))
    dsengine("score", "--model", directory, "--input", given, "--output", out)
    return torch.tensor([x for line in out.read_text().splitlines() for x in json.loads(line)["logprobs"]])


def score_outside(model):
    model.eval()
    numbers = []
    with torch.no_grad():
        for ids in IDS:
            ids = torch.tensor([ids])
            logits = model(input_ids=ids).logits.float()
            numbers.append(torch.log_softmax(logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0])
    return torch.cat(numbers)


def expect_close(name, a, b, tolerance):
    difference = (a - b).abs().max().item()
    assert a.shape == b.shape and difference <= tolerance, f"{name}: {difference}"
    print(f"{name}: largest difference {difference:.1e}")


def four_bit(directory, dtype):
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                             bnb_4bit_compute_dtype=dtype)
    return AutoModelForCausalLM.from_pretrained(directory, quantization_config=how, dtype=dtype)


def unpacked(model):
    """A plain model of its weights, as bitsandbytes gives them."""
    values = {name: value.float() for name, value in model.state_dict().items() if value.is_floating_point()}
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            module.weight.quant_state.dtype = torch.float32  # not rounded to what it computes in
            values[f"{name}.weight"] = dequantize_4bit(module.weight.data, module.weight.quant_state).float()
    whole = LlamaForCausalLM(LlamaConfig(**SHAPE))
    whole.load_state_dict({name: values[name] for name in whole.state_dict()})
    return whole


def write_tokenizer(folder):
    special = [{"id": i, "content": t, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False} for i, t in enumerate(("<pad>", "<s>", "</s>"))]
    vocabulary = {t["content"]: t["id"] for t in special} | {chr(32 + i): 3 + i for i in range(94)}
    (folder / "tokenizer.json").write_text(json.dumps(
        {"version": "1.0", "added_tokens": special, "normalizer": None, "pre_tokenizer": None, "post_processor": None,
         "decoder": {"type": "Fuse"}, "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}))


def train(scratch, base, kept):
    run = scratch / f"run_{base.name}_{kept}"
    config = run.with_suffix(".toml")
    config.write_text(f"""output_dir = "{run}"
model = {{ actor = "{base}", tokenizer = "{scratch}" }}
[[stage]]
name = "sft"
algorithm = "sft"
max_steps = 4
mini_batch_size = 8
learning_rate = 1e-2
lora = {{ rank = 4, base = "{kept}" }}
data.sources = [{{ path = "{scratch}/sft.jsonl" }}]
""")
    dsengine("run", "--config", config)
    return run / "sft"


def main():
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        plain, base, adapter = scratch / "plain", scratch / "base", scratch / "adapter"
        LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(plain)
        four_bit(plain, torch.bfloat16).save_pretrained(base)
        assert json.loads((base / "config.json").read_text())["quantization_config"]["bnb_4bit_use_double_quant"]
        expect_close("the base", score(base, scratch), score_outside(unpacked(four_bit(base, torch.float32))), 1e-4)
        assert (score(base, scratch) - score(plain, scratch)).abs().max() > 0.05, "nothing was rounded"

        made = get_peft_model(four_bit(base, torch.bfloat16), LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"))
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        made.save_pretrained(adapter)
        config = json.loads((adapter / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(base), config
        got = score(adapter, scratch)
        assert (got - score(base, scratch)).abs().max() > 0.05
        with_adapter = lambda folder: PeftModel.from_pretrained(unpacked(four_bit(base, torch.float32)), folder)
        expect_close("PEFT's adapter, unpacked", got, score_outside(with_adapter(adapter)), 1e-4)
        expect_close("PEFT's adapter, bitsandbytes' kernels", got, score_outside(made), 5e-2)

        write_tokenizer(scratch)
        words = [f"word{i} is {i * 7 % 31}" for i in range(48)]
        (scratch / "sft.jsonl").write_text(
            "".join(json.dumps({"prompt": w[:6], "completion": w[6:]}) + "\n" for w in words))
        whole, kept = train(scratch, base, "fp32"), train(scratch, base, "nf4")
        for name in ("adapter/adapter_model.safetensors", "model/model.safetensors"):
            assert (whole / name).read_bytes() == (kept / name).read_bytes(), name
        assert "quantization_config" not in json.loads((kept / "model/config.json").read_text())
        own = score(kept / "adapter", scratch)
        assert (own - score(base, scratch)).abs().max() > 0.05
        expect_close("the engine's adapter, by PEFT",
                     own, score_outside(with_adapter(kept / "adapter")), 1e-4)
        expect_close("beside, merged", own, score(kept / "model", scratch), 1e-4)

        # Of a base that is not rounded yet the engine rounds as bitsandbytes does; its scales stay in float32.
        single = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
        rounded = AutoModelForCausalLM.from_pretrained(plain, quantization_config=single, dtype=torch.float32)
        mine = train(scratch, plain, "nf4")
        expect_close("rounded by the engine and by bitsandbytes", score(mine / "model", scratch),
                     score_outside(PeftModel.from_pretrained(unpacked(rounded), mine / "adapter")), 1e-4)


main()
