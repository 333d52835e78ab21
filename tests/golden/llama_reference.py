"""LLaMA from its papers, in plain PyTorch at any precision; the references of this folder train it.

Written apart from transformers, whose LLaMA rounds to float32 inside its norms, and apart from the engine.

    model = Llama.load("llama_gqa", torch.float64)     # a Hugging Face directory
    logits = model.logits(model.hidden([5, 7, 9]))     # [T, V]

T tokens of one sequence, H hidden width, A heads, K key/value heads, D head width, V vocabulary.
"""
import json
import pathlib

import torch
from safetensors.torch import load_file


class Llama:
    def __init__(self, config, weights, dtype):
        self.config, self.dtype = config, dtype
        self.weights = {name: w.to(dtype).requires_grad_() for name, w in weights.items()}

    @classmethod
    def load(cls, folder, dtype):
        folder = pathlib.Path(folder)
        return cls(json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors"), dtype)

    def hidden(self, ids):
        """The last hidden states, final norm included: [T, H]."""
        w = self.weights
        x = w["model.embed_tokens.weight"][torch.tensor(ids)]
        for i in range(self.config["num_hidden_layers"]):
            layer = f"model.layers.{i}."
            x = x + self.attention(self.norm(x, layer + "input_layernorm.weight"), layer + "self_attn.")
            h = self.norm(x, layer + "post_attention_layernorm.weight")
            gate = h @ w[layer + "mlp.gate_proj.weight"].T
            up = h @ w[layer + "mlp.up_proj.weight"].T
            x = x + (gate * torch.sigmoid(gate) * up) @ w[layer + "mlp.down_proj.weight"].T
        return self.norm(x, "model.norm.weight")

    def logits(self, hidden):
        tied = self.config.get("tie_word_embeddings", False)
        return hidden @ self.weights["model.embed_tokens.weight" if tied else "lm_head.weight"].T

    def values(self, hidden):
        """The scalar head on each hidden state: [T]."""
        return (hidden @ self.weights["score.weight"].T).squeeze(-1)

    def norm(self, x, name):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.config["rms_norm_eps"]) * self.weights[name]

    def attention(self, x, name):
        c, w, T = self.config, self.weights, x.shape[0]
        A = c["num_attention_heads"]
        K = c.get("num_key_value_heads") or A
        D = c.get("head_dim") or c["hidden_size"] // A
        q = self.rotate((x @ w[name + "q_proj.weight"].T).view(T, A, D))
        k = self.rotate((x @ w[name + "k_proj.weight"].T).view(T, K, D))
        v = (x @ w[name + "v_proj.weight"].T).view(T, K, D)
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        heads = []
        for a in range(A):
            kv = a * K // A  # A/K neighbouring query heads share one key/value head
            scores = q[:, a] @ k[:, kv].T / D**0.5
            heads.append(scores.masked_fill(future, float("-inf")).softmax(-1) @ v[:, kv])
        return torch.cat(heads, -1) @ w[name + "o_proj.weight"].T

    def rotate(self, x):
        """Rotary positions in the half-split layout: dimension d turns with d + D/2."""
        T, _, D = x.shape
        theta = self.config.get("rope_theta") or self.config["rope_parameters"]["rope_theta"]
        turn = torch.arange(T, dtype=self.dtype)[:, None] * theta ** (-torch.arange(0, D, 2, dtype=self.dtype) / D)
        cos, sin = turn.cos()[:, None], turn.sin()[:, None]
        a, b = x[..., : D // 2], x[..., D // 2 :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def token_logprobs(model, ids, first=1):
    """log p(token t | the tokens before), for t = first .. n-1."""
    logits = model.logits(model.hidden(ids))[first - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(ids[first:])[:, None]).squeeze(-1)


def token_values(model, ids, first=1):
    """The value of token t is read where it is not yet seen, at position t-1; for t = first .. n-1."""
    return model.values(model.hidden(ids))[first - 1 : -1]
