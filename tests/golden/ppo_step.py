#!/usr/bin/env python3
"""One whole PPO step, written from the papers in float64: ppo_step/ (files: see training_step.py).

    python3 ppo_step.py

Per response token t of a row (old_* and ref_* are the values before the update; p is t's position):
  logp[t]    log-softmax of the logits at p-1, temperature 1
  value[t]   score.weight . final hidden state at p-1, that is before t is seen
  reward[t]  -kl_coef (logp[t] - ref_logp[t]), and on the last token + clip(score, +-clip_reward)
  delta[t] = reward[t] + gamma value[t+1] - value[t], with 0 after the last token, however the response ended
  advantage[t] = delta[t] + gamma lambda advantage[t+1];  target[t] = advantage[t] + value[t]
  whitened   (a - mean) / sqrt(var + 1e-8) over all tokens of all rows, var divided by their number
  loss       mean over all tokens of max(-A r, -A clip(r, 1 +- clip_ratio))
             + 0.5 max((V - target)^2, (clip(V, old V +- clip_value) - target)^2),  r = exp(logp - old_logp)
Actor and critic are clipped (each by its own norm) and updated by AdamW. All rows are one minibatch, so in
the first epoch r = 1 and V = old V exactly; `second_epoch` is the same loss after that update, on the same
old columns, where both clips bite.
"""
import json
import shutil

import torch
from safetensors.torch import load_file, save_file

from llama_reference import Llama, token_logprobs, token_values
from training_step import HERE, OPTIMIZER, Trainer, random_ids, write

FOLDER = HERE / "ppo_step"
SETTINGS = {"kl_coef": 0.1, "gamma": 0.98, "lambda": 0.9, "clip_ratio": 0.2, "clip_value": 0.2, "clip_reward": 5.0,
            "whiten": True, "ppo_epochs": 1, "temperature": 1.0, **OPTIMIZER}
EOS = 2
ROWS = [  # prompt length, response length, how it ended, score (two beyond clip_reward)
    (4, 6, "eos", 0.7), (9, 1, "eos", -1.3), (1, 12, "length", 6.5),
    (17, 3, "length", 2.1), (6, 9, "eos", -7.25), (2, 12, "length", 0.4),
]


def make_input():
    """Responses are drawn from the actor itself, as a rollout's are."""
    generator = torch.Generator().manual_seed(17)
    actor = Llama.load(HERE / "llama_gqa", torch.float64)
    rows = []
    for prompt_length, length, finish_reason, score in ROWS:
        ids = random_ids(generator, actor.config["vocab_size"], prompt_length)
        with torch.no_grad():
            for _ in range(length):
                probabilities = actor.logits(actor.hidden(ids)[-1:])[0].softmax(-1)
                probabilities[:3] = 0  # the end of sequence comes where ROWS puts it
                ids = ids + [torch.multinomial(probabilities, 1, generator=generator).item()]
        if finish_reason == "eos":
            ids[-1] = EOS
        rows.append({"prompt_ids": ids[:prompt_length], "response_ids": ids[prompt_length:],
                     "finish_reason": finish_reason, "score": score})
    return {"actor": "../llama_gqa", "reference": "reference", "critic": "../llama_reward", "settings": SETTINGS,
            "rows": rows}


def make_reference_model():
    """The actor with each weight moved by 2 %, so that the KL term is not zero."""
    folder = FOLDER / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "generation_config.json"):
        shutil.copy(HERE / "llama_gqa" / name, folder / name)
    generator = torch.Generator().manual_seed(18)
    weights = {n: w * (1 + 0.02 * torch.randn(w.shape, generator=generator))
               for n, w in sorted(load_file(HERE / "llama_gqa" / "model.safetensors").items())}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


def columns(function, model, rows):
    return [function(model, r["prompt_ids"] + r["response_ids"], first=len(r["prompt_ids"])) for r in rows]


def advantages(s, row, logp, ref_logp, value):
    """Token rewards, generalised advantage estimates and their targets for one response."""
    reward = -s["kl_coef"] * (logp - ref_logp)
    reward[-1] += min(max(row["score"], -s["clip_reward"]), s["clip_reward"])
    advantage = torch.zeros_like(value)
    next_value = next_advantage = 0.0
    for t in reversed(range(len(value))):
        delta = reward[t] + s["gamma"] * next_value - value[t]
        advantage[t] = delta + s["gamma"] * s["lambda"] * next_advantage
        next_value, next_advantage = value[t], advantage[t]
    return reward, advantage, advantage + value


def losses(s, logp, old_logp, advantage, value, old_value, target):
    """Sums over the tokens of all rows, joined: policy loss, value loss, and how many tokens each clip changed."""
    ratio = (logp - old_logp).exp()
    free, clipped = -advantage * ratio, -advantage * ratio.clamp(1 - s["clip_ratio"], 1 + s["clip_ratio"])
    bounded = torch.minimum(torch.maximum(value, old_value - s["clip_value"]), old_value + s["clip_value"])
    near, far = (value - target) ** 2, (bounded - target) ** 2
    return (torch.maximum(free, clipped).sum(), 0.5 * torch.maximum(near, far).sum(),
            (clipped > free).sum(), (far > near).sum())


def compute(given, dtype):
    s, rows = given["settings"], given["rows"]
    actor, critic, reference = (Llama.load(FOLDER / given[role], dtype) for role in ("actor", "critic", "reference"))
    trainers = {"actor": Trainer(actor), "critic": Trainer(critic)}
    before = {role: t.after() for role, t in trainers.items()}
    with torch.no_grad():
        old_logp, ref_logp = columns(token_logprobs, actor, rows), columns(token_logprobs, reference, rows)
        old_value = columns(token_values, critic, rows)
        per_row = [advantages(s, *row) for row in zip(rows, old_logp, ref_logp, old_value)]
        reward, raw_advantage, target = (list(column) for column in zip(*per_row))
        joined = torch.cat(raw_advantage)
        mean, variance = joined.mean(), joined.var(unbiased=False)
        advantage = [(a - mean) / torch.sqrt(variance + 1e-8) for a in raw_advantage]
        log_ratio = torch.cat(old_logp) - torch.cat(ref_logp)

    def epoch():
        tokens = len(joined)
        logp, value = columns(token_logprobs, actor, rows), columns(token_values, critic, rows)
        policy, value_loss, policy_clipped, value_clipped = losses(
            s, *map(torch.cat, (logp, old_logp, advantage, value, old_value, target)))
        ((policy + value_loss) / tokens).backward()
        result = {"loss": (policy + value_loss).item() / tokens, "policy_loss": policy.item() / tokens,
                  "value_loss": value_loss.item() / tokens, "policy_clip_fraction": policy_clipped.item() / tokens,
                  "value_clip_fraction": value_clipped.item() / tokens,
                  "logp": [x.tolist() for x in logp], "value": [x.tolist() for x in value]}
        result.update({f"{role}_grad_norm": t.update() for role, t in trainers.items()})
        return result

    expected = epoch()
    tensors = {role: (t.grads, before[role], t.after()) for role, t in trainers.items()}
    expected.update({name: [x.tolist() for x in column] for name, column in [
        ("ref_logp", ref_logp), ("reward", reward), ("advantage_before_whitening", raw_advantage),
        ("advantage", advantage), ("target", target)]})
    expected["advantage_mean"], expected["advantage_variance"] = mean.item(), variance.item()
    expected["kl"] = {"k1": log_ratio.mean().item(), "k2": (0.5 * log_ratio**2).mean().item(),
                      "k3": ((-log_ratio).exp() - 1 + log_ratio).mean().item(),
                      "k1_sum_per_row": [(a - b).sum().item() for a, b in zip(old_logp, ref_logp)]}
    expected["second_epoch"] = epoch()
    return expected, tensors


if __name__ == "__main__":
    make_reference_model()
    write(FOLDER, make_input(), compute)
