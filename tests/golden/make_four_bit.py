#!/usr/bin/env python3
"""Weights in 4 bits as bitsandbytes and transformers save them -> four_bit/:

  tensors.safetensors    one linear's weight of each kind beside a plain tensor, as bitsandbytes names the parts
  tensors.bin            one of them, by torch.save
  expected.safetensors   what bitsandbytes gives for each in float32; of nested_blocks.weight the first rows, as many as
                         `rows_skipped` in the metadata says, are left out
  sharded/               a tiny Llama that transformers loaded in 4 bits and saved in shards that part the parts
  sharded_expected.safetensors
  nf4.json               rows of numbers, each quantised by itself: packed codes, scales and the float32 values

The values are those of bitsandbytes' portable implementation. Its kernels for the CPU (0.50.2) give others where a row
is a multiple of 16 elements but no whole number of blocks: there they multiply by other blocks' scales.
"""
import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # bitsandbytes compiles what torch runs as well

import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from bitsandbytes.functional import QuantState, dequantize_4bit, dequantize_blockwise, get_4bit_type, quantize_4bit
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).with_name("four_bit")
NESTED_ROWS_SKIPPED = 80


def dequantised(codes, state):
    state.dtype = torch.float32
    absmax = dequantize_blockwise(state.absmax, state.state2) + state.offset if state.nested else state.absmax
    values = _dequantize_4bit_compute(codes.view(torch.uint8).reshape(-1), absmax, state.code, state.blocksize,
                                      state.shape, torch.float32)
    if state.shape[-1] % state.blocksize == 0:
        assert torch.equal(values.flatten(), dequantize_4bit(codes, state).flatten())
    return values.contiguous()


def four_bit_tensors():
    torch.manual_seed(1234)
    kinds = {  # shape, options of quantize_4bit
        "nf4": ((6, 40), dict(quant_type="nf4")),  # a block has parts of two rows
        "nf4_nested": ((5, 44), dict(quant_type="nf4", compress_statistics=True)),
        "fp4": ((4, 50), dict(quant_type="fp4")),
        "fp4_nested": ((3, 130), dict(quant_type="fp4", compress_statistics=True)),
        "whole_blocks": ((3, 128), dict(quant_type="nf4")),
        "odd": ((3, 33), dict(quant_type="nf4")),
        "wide_blocks": ((4, 70), dict(quant_type="nf4", blocksize=256)),
        "stored_bf16": ((4, 32), dict(quant_type="nf4", quant_storage=torch.bfloat16)),
        # More blocks than one of the scales' own blocks has.
        "nested_blocks": ((96, 90), dict(quant_type="nf4", blocksize=32, compress_statistics=True)),
    }
    tensors, expected = {"norm.weight": torch.randn(4)}, {}
    for name, (shape, options) in kinds.items():
        codes, state = quantize_4bit(0.02 * torch.randn(shape), **options)
        tensors[f"{name}.weight"] = codes
        tensors.update({f"{name}.weight.{part}": t for part, t in state.as_dict(packed=True).items()})
        expected[f"{name}.weight"] = dequantised(codes, state)
    return tensors, expected


def make_tensors():
    tensors, expected = four_bit_tensors()
    save_file(tensors, HERE / "tensors.safetensors", metadata={"format": "pt"})
    torch.save({k: t for k, t in tensors.items() if k.startswith("nf4_nested.")}, HERE / "tensors.bin")
    large = "nested_blocks.weight"
    expected[large] = expected[large][NESTED_ROWS_SKIPPED:].contiguous()
    save_file(expected, HERE / "expected.safetensors", metadata={"rows_skipped": str(NESTED_ROWS_SKIPPED)})


def make_sharded():
    torch.manual_seed(1234)
    config = LlamaConfig(vocab_size=16, hidden_size=20, intermediate_size=36, num_hidden_layers=1,
                         num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
                         bos_token_id=1, eos_token_id=2)
    with tempfile.TemporaryDirectory() as plain:
        LlamaForCausalLM(config).save_pretrained(plain)
        model = AutoModelForCausalLM.from_pretrained(
            plain, device_map="cpu", dtype=torch.float32,
            quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                                                   bnb_4bit_use_double_quant=True))
    model.save_pretrained(HERE / "sharded", max_shard_size=4000)
    (HERE / "sharded" / "generation_config.json").unlink(missing_ok=True)

    stored = {}
    for file in (HERE / "sharded").glob("*.safetensors"):
        stored.update(load_file(file))
    expected = {}
    for name, tensor in stored.items():
        parts = {k[len(name) + 1:]: t for k, t in stored.items() if k.startswith(name + ".")}
        if parts:
            expected[name] = dequantised(tensor, QuantState.from_dict(parts, "cpu"))
        elif not any(name.startswith(other + ".") for other in stored):
            expected[name] = tensor.float()
    save_file(expected, HERE / "sharded_expected.safetensors")


def make_nf4():
    torch.manual_seed(1234)
    midpoints = get_4bit_type("nf4", device="cpu")
    midpoints = (midpoints[1:] + midpoints[:-1]) / 2
    zeros = torch.randn(130)
    zeros[64:128] = 0
    rows = [torch.randn(300), torch.randn(77) * torch.exp(4 * torch.randn(77)), torch.randn(64), zeros,
            torch.tensor([-2.5]), torch.cat([torch.ones(1), midpoints, -torch.ones(48)]),  # numbers half way
            torch.cat([torch.ones(1), midpoints]) * 3, torch.randn(65) * 1e-20]
    cases = []
    for row in rows:
        codes, state = quantize_4bit(row, quant_type="nf4")
        cases.append({"row": row.tolist(), "codes": codes.flatten().tolist(), "scales": state.absmax.tolist(),
                      "values": dequantised(codes, state).flatten().tolist()})
    out = {"values": get_4bit_type("nf4", device="cpu").tolist(), "cases": cases}
    (HERE / "nf4.json").write_text(json.dumps(out) + "\n")


shutil.rmtree(HERE, ignore_errors=True)
HERE.mkdir()
make_tensors()
make_sharded()
make_nf4()
for path in HERE.rglob("*.*"):
    path.chmod(0o644)
