#!/usr/bin/env python3
"""llama.cpp's greedy decoding through llama_decode: the work of `dsengine bench generate` on a LLaMA.

Needs llama-cpp-python and gguf beside numpy and safetensors. --type f32, f16 or q8_0; the GGUF file is written beside the
model once. Its keys and values are float16.
"""
import ctypes
import json
import time
from pathlib import Path

from inputs import emit, median, options, token_rows

o = options(__doc__, batch=1, prompt=128, new=128, type="f32")
import gguf
import llama_cpp as L
import numpy as np
from safetensors.numpy import load_file

PARTS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
TYPE = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16, "q8_0": gguf.GGMLQuantizationType.Q8_0}
FILE_TYPE = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16,
             "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}


def neighbours(weight, heads):
    """Hugging Face turns a head's halves against each other, llama.cpp neighbouring rows."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(model, to):
    c = json.loads((model / "config.json").read_text())
    w = gguf.GGUFWriter(str(to), "llama")
    w.add_block_count(c["num_hidden_layers"])
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_dimension_count(c["hidden_size"] // c["num_attention_heads"])
    w.add_rope_freq_base((c.get("rope_parameters") or c).get("rope_theta", 10000.0))
    w.add_vocab_size(c["vocab_size"])
    w.add_tokenizer_model("no_vocab")
    w.add_file_type(FILE_TYPE[o.type])
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for i in range(c["num_hidden_layers"]):
        names.update({f"model.layers.{i}.{a}": f"blk.{i}.{b}" for a, b in PARTS.items()})
    for name, data in load_file(model / "model.safetensors").items():
        short = names[name.removesuffix(".weight")]
        heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}.get(short.split(".")[-1])
        data = np.ascontiguousarray(neighbours(data, c[heads]) if heads else data, dtype=np.float32)
        if data.ndim == 1 or o.type == "f32":
            w.add_tensor(short + ".weight", data)
        else:
            w.add_tensor(short + ".weight", gguf.quants.quantize(data, TYPE[o.type]), raw_dtype=TYPE[o.type])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


model = Path(o.model)
file = model / f"model-{o.type}.gguf"
if not file.exists():
    write_gguf(model, file.with_suffix(".part"))
    file.with_suffix(".part").rename(file)
vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
prompts = token_rows([o.prompt] * o.batch, vocabulary)
silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
L.llama_log_set(silent, ctypes.c_void_p(0))
L.llama_backend_init()
loaded = L.llama_model_load_from_file(str(file).encode(), L.llama_model_default_params())
settings = L.llama_context_default_params()
settings.n_ctx = o.batch * ((o.prompt + o.new + 255) // 256 * 256)
settings.n_batch = settings.n_ubatch = 512
settings.n_seq_max, settings.n_threads, settings.n_threads_batch = o.batch, o.threads, o.threads
context = L.llama_init_from_model(loaded, settings)
batch = L.llama_batch_init(512, 0, 1)


def decode(items):
    """items: (token, position, sequence, whether its logits are wanted)."""
    batch.n_tokens = len(items)
    for i, (token, position, sequence, wanted) in enumerate(items):
        batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
    if L.llama_decode(context, batch) != 0:
        raise SystemExit("llama_decode failed")


def best(i):
    return int(np.ctypeslib.as_array(L.llama_get_logits_ith(context, i), (vocabulary,)).argmax())


def once():
    L.llama_memory_clear(L.llama_get_memory(context), True)
    start, answers = time.perf_counter(), [[] for _ in prompts]
    items = [(t, p, s, p == o.prompt - 1) for s, row in enumerate(prompts) for p, t in enumerate(row)]
    for first in range(0, len(items), 512):
        decode(items[first:first + 512])
        for i, (_, _, sequence, wanted) in enumerate(items[first:first + 512]):
            if wanted:
                answers[sequence].append(best(i))
    read = time.perf_counter()
    for step in range(o.new - 1):
        decode([(answer[-1], o.prompt + step, s, True) for s, answer in enumerate(answers)])
        for s, answer in enumerate(answers):
            answer.append(best(s))
    return read - start, time.perf_counter() - read, answers


once()
runs = [once() for _ in range(o.repeats)]
prefill, rest = median([r[0] for r in runs]), median([r[1] for r in runs])
emit(peer=f"llama.cpp {o.type}", tokens_per_s=median([o.batch * o.new / (r[0] + r[1]) for r in runs]), prefill_s=prefill,
     decode_s=rest, decode_tokens_per_s=round(o.batch * (o.new - 1) / rest, 2),
     prefill_tokens_per_s=round(o.batch * o.prompt / prefill, 1), output_ids=runs[0][2][0])
