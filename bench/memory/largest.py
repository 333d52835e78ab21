#!/usr/bin/env python3
"""The largest models that train with PPO on one card, by `dsengine plan`: no card is needed, and no weights.

  bench/memory/largest.py [--binary FILE] [--only NAME]…
  # needs: cmake --build --preset release

OPT and LLaMA, 16 prompts of 256 tokens a step with answers of 256, critic and reward model of OPT-350M's or
TinyLlama-1.1B's shape, all in float32 as the engine computes. Directories have a config.json and weights that are
holes in a file. A model fits a card where its plan's peak does, beside 1 GiB of libraries and 3 % between tensors.
Results: bench/results/largest_models.jsonl, a line for each model and way of training.
"""
import json
import math
import random
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from cases import ROOT, options_of, wanted, write

CARDS = {"v100-32": 31.7, "a100-40": 39.4, "a6000": 47.4, "a100-80": 79.1, "h200": 139.8}
LIBRARIES, FRAGMENTATION = 1.0, 0.03
# layers, width, heads
OPT = {"opt-1.3b": (24, 2048, 32), "opt-2.7b": (32, 2560, 32), "opt-6.7b": (32, 4096, 32), "opt-13b": (40, 5120, 40),
       "opt-30b": (48, 7168, 56), "opt-66b": (64, 9216, 72), "opt-175b": (96, 12288, 96)}
# layers, width, inner width, heads, heads of keys
LLAMA = {"llama-7b": (32, 4096, 11008, 32, 32), "llama-13b": (40, 5120, 13824, 40, 40), "llama-33b": (60, 6656, 17920, 52, 52),
         "llama-65b": (80, 8192, 22016, 64, 64), "llama-70b": (80, 8192, 28672, 64, 8)}
LEAST = {"recompute": "true", "micro_batch_size": 1, "rollout.slots": 4}
WAYS = {
    "full": LEAST | {"moments": "8bit", "offload.frozen": "true"},
    "full, offloaded": LEAST | {"offload.moments": "true", "offload.gradients": "true", "offload.frozen": "true"},
    "full, streamed": LEAST | {"offload.moments": "true", "offload.gradients": "true", "offload.weights": "true",
                               "offload.frozen": "true"},
    "lora": LEAST | {"lora.rank": 16},
    "lora on nf4": LEAST | {"lora.rank": 16, "lora.base": "nf4"},
    "lora on an offloaded base": LEAST | {"lora.rank": 16, "offload.frozen": "true"},
}


def opt_tensors(layers, width, head=None):
    inner = 4 * width
    yield "model.decoder.embed_tokens.weight", (50272, width)
    yield "model.decoder.embed_positions.weight", (2050, width)
    names = ["model.decoder.final_layer_norm"]
    for i in range(layers):
        layer = f"model.decoder.layers.{i}."
        names += [layer + "self_attn_layer_norm", layer + "final_layer_norm"]
        for linear in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield f"{layer}self_attn.{linear}.weight", (width, width)
            yield f"{layer}self_attn.{linear}.bias", (width,)
        yield layer + "fc1.weight", (inner, width)
        yield layer + "fc1.bias", (inner,)
        yield layer + "fc2.weight", (width, inner)
        yield layer + "fc2.bias", (width,)
    for name in names:
        yield name + ".weight", (width,)
        yield name + ".bias", (width,)


def llama_tensors(layers, width, inner, heads, kv_heads):
    keys = width // heads * kv_heads
    yield "model.embed_tokens.weight", (32000, width)
    yield "model.norm.weight", (width,)
    for i in range(layers):
        layer = f"model.layers.{i}."
        for name, shape in (("self_attn.q_proj", (width, width)), ("self_attn.k_proj", (keys, width)),
                            ("self_attn.v_proj", (keys, width)), ("self_attn.o_proj", (width, width)),
                            ("mlp.gate_proj", (inner, width)), ("mlp.up_proj", (inner, width)),
                            ("mlp.down_proj", (width, inner)), ("input_layernorm", (width,)),
                            ("post_attention_layernorm", (width,))):
            yield f"{layer}{name}.weight", shape


def write_model(folder, shape, reward=False):
    """A directory whose weights are a hole of their size."""
    folder.mkdir(parents=True)
    if len(shape) == 3:
        layers, width, heads = shape
        tensors = list(opt_tensors(layers, width))
        config = {"model_type": "opt", "architectures": ["OPTForSequenceClassification" if reward else "OPTForCausalLM"],
                  "vocab_size": 50272, "hidden_size": width, "word_embed_proj_dim": width, "ffn_dim": 4 * width,
                  "num_hidden_layers": layers, "num_attention_heads": heads, "max_position_embeddings": 2048,
                  "do_layer_norm_before": True, "activation_function": "relu", "tie_word_embeddings": True}
    else:
        layers, width, inner, heads, kv_heads = shape
        tensors = list(llama_tensors(*shape))
        config = {"model_type": "llama", "architectures": ["LlamaForSequenceClassification" if reward else "LlamaForCausalLM"],
                  "vocab_size": 32000, "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
                  "num_attention_heads": heads, "num_key_value_heads": kv_heads, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
                  "hidden_act": "silu", "max_position_embeddings": 4096, "tie_word_embeddings": False}
        if not reward:
            tensors.append(("lm_head.weight", (32000, width)))
    if reward:
        config["id2label"] = {"0": "LABEL_0"}
        tensors.append(("score.weight", (1, width)))
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, shape in tensors:
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "examples/tiny/model" / name, folder)
    return sum(math.prod(shape) for _, shape in tensors)


def plan(binary, actor, reward, prompts, settings):
    config = actor.parent / "run.toml"
    config.write_text(f"""output_dir = "{actor.parent}/out"
model.actor = "{actor}"
[[stage]]
name = "ppo"
algorithm = "ppo"
max_steps = 1
mini_batch_size = 16
critic.from = "{reward}"
reward.from = "{reward}"
rollout = {{ batch_size = 16, max_response_length = 256 }}
data = {{ sources = [{{ path = "{prompts}" }}], max_prompt_length = 256 }}
""")
    sets = [part for key, value in settings.items() for part in ("--set", f"{'stage.ppo.' if '.' in key else ''}{key}={value}")]
    done = subprocess.run([binary, "plan", "--config", config, "--gpu", "a100-80", "--json", *sets], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)
    assert done.returncode in (0, 1) and done.stdout, (actor, settings, done.stderr[-2000:])
    return json.loads(done.stdout)


def main():
    options, results = options_of(__doc__), []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        prompts = folder / "prompts.jsonl"
        draws = random.Random(1)
        prompts.write_text("".join(
            json.dumps({"prompt": " ".join(draws.choice("abcdefgh") for _ in range(400))}) + "\n" for _ in range(32)))
        write_model(folder / "opt/reward", (24, 1024, 16), reward=True)
        write_model(folder / "llama/reward", (22, 2048, 5632, 32, 4), reward=True)
        for name in wanted(OPT | LLAMA, options):
            family = folder / name.split("-")[0]
            parameters = write_model(family / name, (OPT | LLAMA)[name])
            for way, settings in WAYS.items():
                found = plan(options.binary, family / name, family / "reward", prompts, settings)
                peak = found["peak_gib"]
                fits = [card for card, gib in CARDS.items() if peak * (1 + FRAGMENTATION) + LIBRARIES <= gib]
                results.append({"model": name, "parameters": parameters, "way": way, "peak_gib": round(peak, 2),
                                "phase": found["peak_phase"], "offloaded_gib": round(found["offloaded_gib"], 2),
                                "fits": fits, "settings": settings})
                print(json.dumps(results[-1]), flush=True)
    write(results, "largest_models", "bench/memory/largest.py", options)


main()
