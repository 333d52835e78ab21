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
import sys
import tempfile

os.environ["TORCHDYNAMO_DISABLE"] = "1"

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from scores import Program, expect_close, scores_of, write_data

BINARY = sys.argv[1]
# Rows of whole blocks: of others bitsandbytes' kernels for the CPU (0.50.2) multiply by another block's scale.
SHAPE = dict(vocab_size=97, hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.1)


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


def train(program, base, kept):
    scratch = program.scratch
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
    program.run("run", "--config", config)
    return run / "sft"


def main():
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        program = Program(BINARY, scratch)
        score = program.score
        plain, base, adapter = scratch / "plain", scratch / "base", scratch / "adapter"
        LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(plain)
        four_bit(plain, torch.bfloat16).save_pretrained(base)
        assert json.loads((base / "config.json").read_text())["quantization_config"]["bnb_4bit_use_double_quant"]
        expect_close("the base", score(base), scores_of(unpacked(four_bit(base, torch.float32))), 1e-4)
        assert (score(base) - score(plain)).abs().max() > 0.05, "nothing was rounded"

        made = get_peft_model(four_bit(base, torch.bfloat16), LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"))
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        made.save_pretrained(adapter)
        config = json.loads((adapter / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(base), config
        got = score(adapter)
        assert (got - score(base)).abs().max() > 0.05
        with_adapter = lambda folder: PeftModel.from_pretrained(unpacked(four_bit(base, torch.float32)), folder)
        expect_close("PEFT's adapter, unpacked", got, scores_of(with_adapter(adapter)), 1e-4)
        expect_close("PEFT's adapter, bitsandbytes' kernels", got, scores_of(made), 5e-2)

        write_data(scratch)
        whole, kept = train(program, base, "fp32"), train(program, base, "nf4")
        for name in ("adapter/adapter_model.safetensors", "model/model.safetensors"):
            assert (whole / name).read_bytes() == (kept / name).read_bytes(), name
        assert "quantization_config" not in json.loads((kept / "model/config.json").read_text())
        own = score(kept / "adapter")
        assert (own - score(base)).abs().max() > 0.05
        expect_close("the engine's adapter, by PEFT",
                     own, scores_of(with_adapter(kept / "adapter")), 1e-4)
        expect_close("beside, merged", own, score(kept / "model"), 1e-4)

        # Of a base that is not rounded yet the engine rounds as bitsandbytes does; its scales stay in float32.
        single = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
        rounded = AutoModelForCausalLM.from_pretrained(plain, quantization_config=single, dtype=torch.float32)
        mine = train(program, plain, "nf4")
        expect_close("rounded by the engine and by bitsandbytes", score(mine / "model"),
                     scores_of(PeftModel.from_pretrained(unpacked(rounded), mine / "adapter")), 1e-4)


main()
