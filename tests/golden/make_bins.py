"""Makes tests/golden/bins: small weight files by torch, safetensors and transformers, with expected.json,
the values that torch itself reads from them.

    .deps/venv/bin/python tests/golden/make_bins.py
"""

import json
import os
import pathlib
import pickle
import shutil
import zipfile

import safetensors.torch
import torch
import transformers

HERE = pathlib.Path(__file__).parent / "bins"


class RunsCommand:
    def __reduce__(self):
        return os.system, ("touch /tmp/dsengine-was-here",)


def numbers(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(dtype)


def state_dict():
    base = numbers(24)
    matrix = numbers(3, 4)
    cube = numbers(2, 3, 4)
    return {
        "plain": matrix,
        "tied": matrix,
        "transposed": matrix.t(),
        "offset": base[5:11].view(2, 3),
        "stepped": base[1::3],
        "permuted": cube.permute(2, 0, 1),
        "broadcast": numbers(3, 1).expand(3, 5),
        "parameter": torch.nn.Parameter(numbers(2, 2)),
        "half": numbers(5, dtype=torch.float16),
        "bfloat": numbers(2, 3, dtype=torch.bfloat16).t(),
        "double": numbers(3, dtype=torch.float64),
        "scalar": torch.tensor(1.25),
        "empty": torch.zeros(0, 3),
        "positions": torch.arange(4),
        "mask": torch.tensor([True, False]),
    }


def expected(tensors):
    """Shape, and the float32 values in row-major order as hexadecimal bytes, in the dictionary's order."""
    return [
        {"name": name, "shape": list(t.shape), "values": t.detach().float().numpy().tobytes().hex()}
        for name, t in tensors.items()
    ]


def write_zip(path, members):
    """As torch.save lays it out, but with any pickle; always the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo("archive/" + name), data)


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    tensors = state_dict()
    torch.save(tensors, HERE / "state_dict.bin")

    module = torch.nn.Linear(3, 2)
    with torch.no_grad():
        module.weight.copy_(numbers(2, 3))
        module.bias.copy_(numbers(2))
    torch.save(module.state_dict(), HERE / "module.bin")  # an OrderedDict with _metadata
    counted = (torch.arange(66 * 64) % 1000).half().view(66, 64)
    torch.save({"w": counted.t()}, HERE / "transposed.bin")  # more elements than the reader gathers at once
    torch.save({"w": numbers(2)}, HERE / "legacy.bin", _use_new_zipfile_serialization=False)

    for protocol in (2, 4):
        bytes_ = pickle.dumps({"w": RunsCommand()}, protocol)
        write_zip(HERE / f"malicious{protocol}.bin", {"data.pkl": bytes_, "version": "3\n"})

    plain = {k: t.detach().contiguous().clone() for k, t in tensors.items()}
    safetensors.torch.save_file(plain, HERE / "python.safetensors", metadata={"format": "pt", "made by": "safetensors"})

    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(HERE / "sharded", max_shard_size=2600)

    states = {"state_dict": tensors, "module": module.state_dict(), "sharded": model.state_dict()}
    text = json.dumps({name: expected(state) for name, state in states.items()}, indent=0)
    (HERE / "expected.json").write_text(text + "\n")
    for path in HERE.rglob("*.*"):
        path.chmod(0o644)


if __name__ == "__main__":
    main()
