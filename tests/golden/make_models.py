#!/usr/bin/env python3
"""Writes the golden models: tiny random Hugging Face directories and what transformers computes with them.

    python3 make_models.py [NAME…]      # writes a directory for each row of MODELS (or those named), and llama_gqa_sharded/

Each has model.safetensors, config.json, generation_config.json and golden.json:
  causal models  {"kind": "causal_lm", "cases": [{"input_ids": [n], "logprobs": [n-1], "greedy": [40]}]}
  …_reward       {"kind": "reward",    "cases": [{"input_ids": [n], "reward": score of the last token}]}
logprobs[t-1] is log p(token t | before) in float32; greedy ignores the end of sequence. The sharded directory
holds llama_gqa's weights in two files and shares its golden.json. Rows of the table FAMILIES store their weights in
bfloat16, half the size; their values too are float32 arithmetic on what is stored. The other causal rows have
"logprobs_bf16" besides: float32 arithmetic on the weights rounded to bfloat16.
"""
import copy
import json
import pathlib
import shutil
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (Gemma2Config, Gemma2ForCausalLM, Gemma2ForSequenceClassification, GemmaConfig, GemmaForCausalLM,
                          GemmaForSequenceClassification, GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel,
                          GPTNeoXConfig, GPTNeoXForCausalLM, GPTNeoXForSequenceClassification, LlamaConfig,
                          LlamaForCausalLM, LlamaForSequenceClassification, MistralConfig, MistralForCausalLM,
                          MistralForSequenceClassification, OPTConfig, OPTForCausalLM, OPTForSequenceClassification,
                          Phi3Config, Phi3ForCausalLM, Phi3ForSequenceClassification, Qwen2Config, Qwen2ForCausalLM,
                          Qwen2ForSequenceClassification, Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification)

from llama_reference import Llama, token_logprobs

HERE = pathlib.Path(__file__).resolve().parent
PROMPT_LENGTHS = [1, 2, 3, 5, 8, 13, 21, 34, 60, 120, 200]   # as many of them as the positions allow
NEW_TOKENS = 40
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


def family(config_class, reward=False, **changes):
    """Sizes that are small, unlike each other where the architecture allows, and leave room for 200 + 40 positions."""
    base = dict(vocab_size=97, hidden_size=32, intermediate_size=44, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=256, tie_word_embeddings=False)
    if reward:
        base.update(hidden_size=16, intermediate_size=20, num_labels=1)
    return config_class(**{**base, **ENDS, **changes})


def gpt2(reward=False, **changes):
    return family(GPT2Config, reward, n_inner=44, n_positions=256, tie_word_embeddings=True, **changes)


def opt(reward=False, **changes):
    base = dict(ffn_dim=40, word_embed_proj_dim=16 if reward else 32, dropout=0.0, tie_word_embeddings=True)
    return family(OPTConfig, reward, **{**base, **changes})


def scaled(rope_type, **more):
    return {"rope_type": rope_type, "rope_theta": 10000.0, **more}


LONG = {"long_factor": [1.0, 2.5, 9.0, 40.0], "short_factor": [1.0, 1.1, 1.3, 1.7], "original_max_position_embeddings": 100}
QWEN_WINDOW = dict(use_sliding_window=True, sliding_window=6, max_window_layers=1)
PROJECTED = dict(do_layer_norm_before=False, word_embed_proj_dim=12)
FAMILIES = {  # class, config; the seed is the row's number
    "llama_bias": (LlamaForCausalLM, lambda: family(LlamaConfig, attention_bias=True, mlp_bias=True, head_dim=12,
                                                    num_key_value_heads=2, hidden_act="gelu")),
    "llama_linear": (LlamaForCausalLM, lambda: family(LlamaConfig, rope_parameters=scaled("linear", factor=2.5))),
    "llama_dynamic": (LlamaForCausalLM, lambda: family(LlamaConfig, rope_parameters=scaled("dynamic", factor=4.0))),
    "llama_llama3": (LlamaForCausalLM, lambda: family(LlamaConfig, rope_parameters=scaled(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64))),
    "llama_yarn": (LlamaForCausalLM, lambda: family(LlamaConfig, rope_parameters=scaled(
        "yarn", factor=4.0, original_max_position_embeddings=64))),
    "llama_yarn_mscale": (LlamaForCausalLM, lambda: family(LlamaConfig, head_dim=16, rope_parameters=scaled(
        "yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=8.0, beta_slow=2.0, mscale=0.7,
        mscale_all_dim=1.2, truncate=False))),
    "llama_longrope": (LlamaForCausalLM, lambda: family(LlamaConfig, rope_parameters=scaled("longrope", **LONG))),
    "mistral": (MistralForCausalLM, lambda: family(MistralConfig, num_key_value_heads=2, sliding_window=7,
                                                   rope_parameters=scaled("default"))),
    "mistral_full": (MistralForCausalLM, lambda: family(MistralConfig, num_key_value_heads=2, head_dim=12,
                                                        sliding_window=None)),
    "mistral_reward": (MistralForSequenceClassification, lambda: family(MistralConfig, True, num_key_value_heads=2,
                                                                        sliding_window=7)),
    "qwen2": (Qwen2ForCausalLM, lambda: family(Qwen2Config, num_key_value_heads=2, rope_parameters=scaled("default"))),
    "qwen2_window": (Qwen2ForCausalLM, lambda: family(Qwen2Config, num_key_value_heads=2, tie_word_embeddings=True,
                                                      **QWEN_WINDOW)),
    "qwen2_reward": (Qwen2ForSequenceClassification, lambda: family(Qwen2Config, True, num_key_value_heads=2)),
    "qwen3": (Qwen3ForCausalLM, lambda: family(Qwen3Config, num_key_value_heads=2, head_dim=12, tie_word_embeddings=True)),
    "qwen3_window": (Qwen3ForCausalLM, lambda: family(Qwen3Config, num_key_value_heads=1, head_dim=16,
                                                      attention_bias=True, **QWEN_WINDOW)),
    "qwen3_reward": (Qwen3ForSequenceClassification, lambda: family(Qwen3Config, True, num_key_value_heads=2, head_dim=8)),
    "opt_350m": (OPTForCausalLM, lambda: opt(**PROJECTED)),
    "opt_plain": (OPTForCausalLM, lambda: opt(_remove_final_layer_norm=True, enable_bias=False, activation_function="gelu",
                                              layer_norm_elementwise_affine=False, tie_word_embeddings=False)),
    "opt_reward": (OPTForSequenceClassification, lambda: opt(True)),
    "opt_350m_reward": (OPTForSequenceClassification, lambda: opt(True, **PROJECTED)),
    "gpt2": (GPT2LMHeadModel, gpt2),
    "gpt2_scales": (GPT2LMHeadModel, lambda: gpt2(scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True,
                                                  activation_function="relu")),
    "gpt2_reward": (GPT2ForSequenceClassification, lambda: gpt2(True)),
    "gpt_neox": (GPTNeoXForCausalLM, lambda: family(GPTNeoXConfig, rope_parameters=scaled(
        "default", partial_rotary_factor=0.5))),
    "gpt_neox_serial": (GPTNeoXForCausalLM, lambda: family(GPTNeoXConfig, use_parallel_residual=False,
                                                           attention_bias=False)),
    "gpt_neox_reward": (GPTNeoXForSequenceClassification, lambda: family(GPTNeoXConfig, True, rope_parameters=scaled(
        "default", partial_rotary_factor=1.0))),
    "phi3": (Phi3ForCausalLM, lambda: family(Phi3Config, num_key_value_heads=2, sliding_window=9, rope_parameters=scaled(
        "default", partial_rotary_factor=0.75))),
    "phi3_longrope": (Phi3ForCausalLM, lambda: family(Phi3Config, num_key_value_heads=2,
                                                      original_max_position_embeddings=100,
                                                      rope_parameters=scaled("longrope", **LONG))),
    "phi3_reward": (Phi3ForSequenceClassification, lambda: family(Phi3Config, True, num_key_value_heads=2)),
    "gemma": (GemmaForCausalLM, lambda: family(GemmaConfig, num_key_value_heads=1, head_dim=12, tie_word_embeddings=True)),
    "gemma_reward": (GemmaForSequenceClassification, lambda: family(GemmaConfig, True, num_key_value_heads=2, head_dim=8)),
    "gemma2": (Gemma2ForCausalLM, lambda: family(Gemma2Config, num_key_value_heads=2, head_dim=12, sliding_window=5,
                                                 query_pre_attn_scalar=20, attn_logit_softcapping=3.0,
                                                 final_logit_softcapping=7.0, tie_word_embeddings=True)),
    "gemma2_uncapped": (Gemma2ForCausalLM, lambda: family(Gemma2Config, num_key_value_heads=2, head_dim=12,
                                                          sliding_window=5, attn_logit_softcapping=None,
                                                          final_logit_softcapping=None, attention_bias=True)),
    "gemma2_reward": (Gemma2ForSequenceClassification, lambda: family(Gemma2Config, True, num_key_value_heads=2, head_dim=8,
                                                                      sliding_window=5, attn_logit_softcapping=3.0)),
    # 5 of 8 dimensions turn, in three pairs; Gemma knows no share, and transformers does not read one there.
    "phi3_odd": (Phi3ForCausalLM, lambda: family(Phi3Config, rope_parameters=scaled("default", partial_rotary_factor=0.7))),
    "gemma_share": (GemmaForCausalLM, lambda: family(GemmaConfig, num_key_value_heads=1, head_dim=12, rope_parameters=scaled(
        "default", partial_rotary_factor=0.5), tie_word_embeddings=False)),
}
OLD_SPELLING = {"llama_mha", "llama_linear", "llama_llama3", "gpt_neox", "phi3", "phi3_longrope", "mistral_full"}
BARE_NAMES = {"gpt2_scales", "opt_plain"}
MODELS.update({name: (20 + i, *row) for i, (name, row) in enumerate(FAMILIES.items())})


@torch.no_grad()
def randomise(model, seed):
    """Weights large enough that no two logits are alike; norms and biases away from their trivial values."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        noise = torch.randn(p.shape, generator=generator)
        if p.dim() == 1:
            gemma = model.config.model_type.startswith("gemma")  # keeps norms' distance from 1
            p.copy_(0.1 * noise if name.endswith("bias") else 0.2 * noise + (not gemma))
        else:
            p.copy_((0.3 if model.config.max_position_embeddings == 128 else 0.24) * noise)


def cases_of(model, seed, make_case):
    """One case a length; make_case gives None for a prompt whose greedy path comes near a tie, and it is redrawn."""
    generator = torch.Generator().manual_seed(seed)
    for n in PROMPT_LENGTHS:
        if n + NEW_TOKENS > model.config.max_position_embeddings:
            break
        case = None
        while case is None:
            case = make_case(model, torch.randint(3, model.config.vocab_size, (n,), generator=generator).tolist())
        yield case


@torch.no_grad()
def logprobs(model, ids):
    batch = torch.tensor([ids])
    return model(batch).logits[0, :-1].float().log_softmax(-1).gather(-1, batch[0, 1:, None]).squeeze(-1).tolist()


@torch.no_grad()
def causal_case(model, ids):
    batch = torch.tensor([ids])
    whole = model.generate(batch, attention_mask=torch.ones_like(batch), max_new_tokens=NEW_TOKENS, do_sample=False)[0]
    greedy = whole[len(ids):].tolist()
    # The path once more without the cache: the same tokens, and each choice far from a tie.
    best = model(whole[None]).logits[0, len(ids) - 1 : -1].topk(2)
    if (best.values[:, 0] - best.values[:, 1]).min() < MIN_GREEDY_GAP:
        return None
    assert best.indices[:, 0].tolist() == greedy and len(greedy) == NEW_TOKENS
    return {"input_ids": ids, "logprobs": logprobs(model, ids), "greedy": greedy}


@torch.no_grad()
def reward_case(model, ids):
    return {"input_ids": ids, "reward": model(torch.tensor([ids])).logits[0, 0].item()}


@torch.no_grad()
def rounding(folder, model, golden):
    """The largest difference of the golden values from float64 ones."""
    if folder.name in ("llama_mha", "llama_gqa", "llama_tied", "llama_reward"):
        exact = Llama.load(folder, torch.float64)
        logprobs, reward = (lambda ids: token_logprobs(exact, ids)), (lambda ids: exact.values(exact.hidden(ids))[-1:])
    else:
        model.double()
        logprobs = lambda ids: model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1).gather(
            -1, torch.tensor(ids[1:])[:, None]).squeeze(-1)
        reward = lambda ids: model(torch.tensor([ids])).logits[0]
    worst = 0.0
    for case in golden["cases"]:
        given = case["logprobs"] if golden["kind"] == "causal_lm" else [case["reward"]]
        exact_values = (logprobs if golden["kind"] == "causal_lm" else reward)(case["input_ids"])
        difference = (torch.tensor(given, dtype=torch.float64) - exact_values).abs()
        worst = max([worst, *difference.tolist()])
    assert worst < MAX_ROUNDING, worst
    return worst


def check_spread(golden):
    """Values that hardly differ would prove nothing."""
    values = [v for c in golden["cases"] for v in (c["logprobs"] if "logprobs" in c else [c["reward"]])]
    assert torch.tensor(values).std() > 0.25, torch.tensor(values).std()


@torch.no_grad()
def round_to_bfloat16(model):
    """Parameters alone: rotary frequencies stay float32."""
    for p in model.parameters():
        p.copy_(p.bfloat16())


def make(name):
    seed, model_class, make_config = MODELS[name]
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model = model_class(make_config()).eval()
    randomise(model, seed)
    small = name in FAMILIES
    if small:
        round_to_bfloat16(model)
    reward = model_class.__name__.endswith("ForSequenceClassification")
    if not reward:
        model.generation_config = transformers.GenerationConfig(bos_token_id=1)
    cases = list(cases_of(model, 100 + seed, reward_case if reward else causal_case))
    if not reward and not small:
        rounded = copy.deepcopy(model)
        round_to_bfloat16(rounded)
        for case in cases:
            case["logprobs_bf16"] = logprobs(rounded, case["input_ids"])
    golden = {"kind": "reward" if reward else "causal_lm", "transformers": transformers.__version__, "cases": cases}
    if not reward:
        model.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=2)
    (copy.deepcopy(model).bfloat16() if small else model).save_pretrained(folder)
    if reward:  # transformers writes this file for generating models only
        (folder / "generation_config.json").write_text('{\n  "bos_token_id": 1,\n  "eos_token_id": 2\n}\n')
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    check_spread(golden)
    print(f"{name}: {len(cases)} cases, float32 rounding {rounding(folder, model, golden):.1e}")


def rewrite_in_the_old_spelling(folder):
    """config.json as transformers 4 wrote it: rope_theta, rope_scaling, torch_dtype; what equals a default left out."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope_parameters = config.pop("rope_parameters")
    neox = config["model_type"] == "gpt_neox"
    config["rotary_emb_base" if neox else "rope_theta"] = rope_parameters.pop("rope_theta")
    share = rope_parameters.pop("partial_rotary_factor", None)
    if share is not None:
        config["rotary_pct" if neox else "partial_rotary_factor"] = share
    rope_type = rope_parameters.pop("rope_type")
    config["rope_scaling"] = None
    if rope_type != "default":
        spelling = "rope_type" if rope_type == "llama3" else "type"  # as their own releases have it
        config["rope_scaling"] = {spelling: rope_type, **rope_parameters}
    config["torch_dtype"] = config.pop("dtype")
    if folder.name == "llama_mha":
        del config["num_key_value_heads"], config["head_dim"]
    path.write_text(json.dumps(config, indent=2) + "\n")


def strip(folder):
    """Tensors named as the Hub's first checkpoints name them: without "model." or "transformer.", causal masks beside."""
    weights = {n.removeprefix("model.").removeprefix("transformer."): w
               for n, w in load_file(folder / "model.safetensors").items()}
    if "wte.weight" in weights:
        weights["h.0.attn.bias"] = torch.ones(8, 8).tril()[None, None]
        weights["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


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


def main(names):
    transformers.utils.logging.disable_progress_bar()
    for name in names or MODELS:
        make(name)
        if name in OLD_SPELLING:
            rewrite_in_the_old_spelling(HERE / name)
        if name in BARE_NAMES:
            strip(HERE / name)
    if not names or "llama_gqa" in names:
        shard(HERE / "llama_gqa", HERE / "llama_gqa_sharded")
    for file in HERE.glob("*/*.safetensors"):
        file.chmod(0o644)  # safetensors leaves them readable by their owner alone


if __name__ == "__main__":
    main(sys.argv[1:])
