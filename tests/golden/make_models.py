#!/usr/bin/env python3
"""Writes the golden models: tiny random Hugging Face directories and what transformers computes with them.

    python3 make_models.py      # writes llama_mha/ llama_gqa/ llama_gqa_sharded/ llama_tied/ opt_prenorm/ llama_reward/

Each has model.safetensors, config.json, generation_config.json and golden.json:
  causal models  {"kind": "causal_lm", "cases": [{"input_ids": [n], "logprobs": [n-1], "greedy": [24]}]}
  llama_reward   {"kind": "reward",    "cases": [{"input_ids": [n], "reward": score of the last token}]}
logprobs[t-1] is log p(token t | before) in float32; greedy ignores the end of sequence. The sharded directory
holds llama_gqa's weights in two files and shares its golden.json.
"""
import json
import pathlib
import shutil

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, OPTConfig, OPTForCausalLM

from llama_reference import Llama, token_logprobs

HERE = pathlib.Path(__file__).resolve().parent
PROMPT_LENGTHS = [1, 2, 3, 5, 8, 13, 21, 34, 60]
NEW_TOKENS = 24
MIN_GREEDY_GAP = 5e-3   # between the best and the second logit: far above what two float32 engines differ by
MAX_ROUNDING = 2e-5     # float32 against float64: a fifth of the 1e-4 that an engine is allowed
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}


def llama_config(**changes):
    return LlamaConfig(**{**dict(vocab_size=97, hidden_size=24, intermediate_size=36, num_hidden_layers=2,
                                 num_attention_heads=4, max_position_embeddings=128, rms_norm_eps=1e-5,
                                 tie_word_embeddings=False), **ENDS, **changes})


def opt_config():
    return OPTConfig(vocab_size=101, hidden_size=16, word_embed_proj_dim=16, ffn_dim=40, num_hidden_layers=2,
                     num_attention_heads=4, max_position_embeddings=128, dropout=0.0, do_layer_norm_before=True, **ENDS)


def rope(theta):
    return {"rope_type": "default", "rope_theta": theta}


MODELS = {  # seed of the weights, class, config
    "llama_mha": (1, LlamaForCausalLM, lambda: llama_config(rope_parameters=rope(10000.0))),
    "llama_gqa": (2, LlamaForCausalLM,
                  lambda: llama_config(num_key_value_heads=2, head_dim=8, rope_parameters=rope(500000.0))),
    "llama_tied": (3, LlamaForCausalLM,
                   lambda: llama_config(num_key_value_heads=1, head_dim=8, tie_word_embeddings=True, vocab_size=131,
                                        rms_norm_eps=1e-6, rope_parameters=rope(10000.0))),
    "opt_prenorm": (4, OPTForCausalLM, opt_config),
    "llama_reward": (5, LlamaForSequenceClassification,
                     lambda: llama_config(num_key_value_heads=2, hidden_size=16, num_labels=1,
                                          rope_parameters=rope(10000.0))),
}


@torch.no_grad()
def randomise(model, seed):
    """Weights large enough that no two logits are alike; norms and biases away from their trivial values."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        noise = torch.randn(p.shape, generator=generator)
        if p.dim() == 1:
            p.copy_(0.1 * noise if name.endswith("bias") else 1 + 0.2 * noise)
        else:
            p.copy_(0.3 * noise)


def cases_of(model, seed, make_case):
    """One case a length; make_case gives None for a prompt whose greedy path comes near a tie, and it is redrawn."""
    generator = torch.Generator().manual_seed(seed)
    for n in PROMPT_LENGTHS:
        case = None
        while case is None:
            case = make_case(model, torch.randint(3, model.config.vocab_size, (n,), generator=generator).tolist())
        yield case


@torch.no_grad()
def causal_case(model, ids):
    batch = torch.tensor([ids])
    logprobs = model(batch).logits[0, :-1].float().log_softmax(-1).gather(-1, batch[0, 1:, None]).squeeze(-1)
    whole = model.generate(batch, attention_mask=torch.ones_like(batch), max_new_tokens=NEW_TOKENS, do_sample=False)[0]
    greedy = whole[len(ids):].tolist()
    # The path once more without the cache: the same tokens, and each choice far from a tie.
    best = model(whole[None]).logits[0, len(ids) - 1 : -1].topk(2)
    if (best.values[:, 0] - best.values[:, 1]).min() < MIN_GREEDY_GAP:
        return None
    assert best.indices[:, 0].tolist() == greedy and len(greedy) == NEW_TOKENS
    return {"input_ids": ids, "logprobs": logprobs.tolist(), "greedy": greedy}


@torch.no_grad()
def reward_case(model, ids):
    return {"input_ids": ids, "reward": model(torch.tensor([ids])).logits[0, 0].item()}


@torch.no_grad()
def rounding(folder, model, golden):
    """The largest difference of the golden values from float64 ones."""
    if model.config.model_type == "llama":
        exact = Llama.load(folder, torch.float64)
        logprobs, reward = (lambda ids: token_logprobs(exact, ids)), (lambda ids: exact.values(exact.hidden(ids))[-1:])
    else:
        model.double()
        logprobs = lambda ids: model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1).gather(
            -1, torch.tensor(ids[1:])[:, None]).squeeze(-1)
    worst = 0.0
    for case in golden["cases"]:
        given = case["logprobs"] if golden["kind"] == "causal_lm" else [case["reward"]]
        exact_values = (logprobs if golden["kind"] == "causal_lm" else reward)(case["input_ids"])
        difference = (torch.tensor(given, dtype=torch.float64) - exact_values).abs()
        worst = max([worst, *difference.tolist()])
    assert worst < MAX_ROUNDING, worst
    return worst


def make(name):
    seed, model_class, make_config = MODELS[name]
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model = model_class(make_config()).eval()
    randomise(model, seed)
    reward = model_class is LlamaForSequenceClassification
    if not reward:
        model.generation_config = transformers.GenerationConfig(bos_token_id=1)
    cases = list(cases_of(model, 100 + seed, reward_case if reward else causal_case))
    golden = {"kind": "reward" if reward else "causal_lm", "transformers": transformers.__version__, "cases": cases}
    if not reward:
        model.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=2)
    model.save_pretrained(folder)
    if reward:  # transformers writes this file for generating models only
        (folder / "generation_config.json").write_text('{\n  "bos_token_id": 1,\n  "eos_token_id": 2\n}\n')
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    print(f"{name}: {len(cases)} cases, float32 rounding {rounding(folder, model, golden):.1e}")


def rewrite_in_the_old_spelling(folder):
    """config.json as transformers 4 wrote it: rope_theta and torch_dtype; no kv heads, no head_dim."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["rope_scaling"] = None
    config["torch_dtype"] = config.pop("dtype")
    del config["num_key_value_heads"], config["head_dim"]
    path.write_text(json.dumps(config, indent=2) + "\n")


def shard(source, target):
    """The same weights in two files with an index, cut in the middle of a layer."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name in ("config.json", "generation_config.json"):
        shutil.copy(source / name, target / name)
    weights = load_file(source / "model.safetensors")
    names = sorted(weights)
    files = {f"model-0000{i}-of-00002.safetensors": part
             for i, part in [(1, names[: len(names) // 2]), (2, names[len(names) // 2 :])]}
    for file, part in files.items():
        save_file({n: weights[n] for n in part}, target / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": sum(4 * w.numel() for w in weights.values())},
             "weight_map": {n: file for file, part in files.items() for n in part}}
    (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def main():
    transformers.utils.logging.disable_progress_bar()
    for name in MODELS:
        make(name)
    rewrite_in_the_old_spelling(HERE / "llama_mha")
    shard(HERE / "llama_gqa", HERE / "llama_gqa_sharded")
    for file in HERE.glob("*/*.safetensors"):
        file.chmod(0o644)  # safetensors leaves them readable by their owner alone


if __name__ == "__main__":
    main()
