"""A LLaMA with random weights in a Hugging Face folder, for benchmarks: write_model(folder, config)."""
import json
import os
import struct

import numpy


LLAMA_110M = {"architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 768, "intermediate_size": 2048,
              "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 12, "max_position_embeddings": 1024,
              "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": True,
              "eos_token_id": 2}


def shapes_of(config):
    width, inner = config["hidden_size"], config["intermediate_size"]
    keys = width * config["num_key_value_heads"] // config["num_attention_heads"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], width), "model.norm.weight": (width,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    for layer in range(config["num_hidden_layers"]):
        for name, shape in {"self_attn.q_proj": (width, width), "self_attn.k_proj": (keys, width),
                            "self_attn.v_proj": (keys, width), "self_attn.o_proj": (width, width),
                            "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width),
                            "mlp.down_proj": (width, inner), "input_layernorm": (width,),
                            "post_attention_layernorm": (width,)}.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return shapes


def write_model(folder, config):
    """Bytes of the weights, which are on the disk on return."""
    shapes = shapes_of(config)
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = 4 * int(numpy.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    draws = numpy.random.default_rng(1)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            file.write((draws.standard_normal(shape, numpy.float32) * numpy.float32(0.02)).tobytes())
        file.flush()
        os.fsync(file.fileno())
    (folder / "config.json").write_text(json.dumps(config))
    return end
