#!/usr/bin/env python3
"""Directories of models with random weights, float32, of the shapes that compare.py names.

  make_models.py FOLDER          # needs transformers, of the environment of scripts/setup
"""
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

LLAMA = dict(vocab_size=32000, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=4,
             intermediate_size=2048, max_position_embeddings=2048, rms_norm_eps=1e-5, tie_word_embeddings=False,
             bos_token_id=1, eos_token_id=2)
OPT = dict(vocab_size=50272, max_position_embeddings=2048, dropout=0.0, do_layer_norm_before=True, pad_token_id=1,
           bos_token_id=2, eos_token_id=2)
SHAPES = {
    "llama-110m": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "opt-125m": lambda: OPTForCausalLM(OPTConfig(hidden_size=768, word_embed_proj_dim=768, num_hidden_layers=12,
                                                 num_attention_heads=12, ffn_dim=3072, **OPT)),
    "opt-30m": lambda: OPTForCausalLM(OPTConfig(hidden_size=384, word_embed_proj_dim=384, num_hidden_layers=6,
                                                num_attention_heads=6, ffn_dim=1536, **OPT)),
}


def make(folder):
    for name, model in SHAPES.items():
        if (folder / name / "model.safetensors").exists():
            continue
        torch.manual_seed(20260801)
        model().float().save_pretrained(folder / name)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
