"""A model of another's plugin computes what transformers does: third_party_model_test.py BINARY

StarCoder2 (examples/third_party_model) with weights far from zero, biases and norms included: log-probs within 1e-4 and
equal greedy tokens.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import Starcoder2Config, Starcoder2ForCausalLM

BINARY = pathlib.Path(sys.argv[1]).resolve()
PLUGINS = BINARY.parent.parent / "tests/app/plugins"
torch.manual_seed(3)


def logprobs_of(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    return torch.log_softmax(logits, -1)[range(len(ids) - 1), ids[1:]]


def run(*command):
    subprocess.run([BINARY, *map(str, command), "--plugin-path", PLUGINS], check=True, stderr=subprocess.DEVNULL)


for tied, bias in ((True, True), (False, False)):
    config = Starcoder2Config(vocab_size=97, hidden_size=32, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4,
                              num_key_value_heads=2, max_position_embeddings=64, use_bias=bias, tie_word_embeddings=tied,
                              rope_parameters={"rope_type": "default", "rope_theta": 500.0}, bos_token_id=0, eos_token_id=1,
                              norm_epsilon=1e-3)
    model = Starcoder2ForCausalLM(config).float().eval()
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        model.save_pretrained(folder / "model")
        cases = [torch.randint(2, 97, (n,)).tolist() for n in (2, 7, 33)]
        (folder / "in").write_text("".join(json.dumps({"input_ids": c}) + "\n" for c in cases))
        run("score", "--model", folder / "model", "--input", folder / "in", "--output", folder / "out")
        given = [json.loads(line)["logprobs"] for line in (folder / "out").read_text().splitlines()]
        for case, got in zip(cases, given, strict=True):
            expected = logprobs_of(model, case)
            assert len(case) < 33 or expected.std() > 1, f"flat log-probs prove nothing: {expected}"
            assert (expected - torch.tensor(got[-len(expected):], dtype=torch.float64)).abs().max() < 1e-4
        run("generate", "--model", folder / "model", "--input", folder / "in", "--output", folder / "out", "--max-new-tokens", 16,
            "--temperature", 0, "--ignore-eos")
        for case, line in zip(cases, (folder / "out").read_text().splitlines(), strict=True):
            greedy = model.generate(torch.tensor([case]), max_new_tokens=16, do_sample=False)[0, len(case):]
            assert greedy.tolist() == json.loads(line)["output_ids"], (greedy, line)
