#!/usr/bin/env python3
"""Writes algorithms.json: whole-batch losses, advantages and gradients of the policy algorithms, in float64.

    python3 algorithm_reference.py

Each function below is the objective as its paper states it (equations named), vectorised over padded tensors and
differentiated by PyTorch, written without sight of the plugins. A case holds ragged rows in groups of answers to one
prompt, with the columns old_logp, ref_logp, logp, mask and score, exact in float32; what is expected is the advantage
of every token (float32 columns: 1e-6), the loss of the whole minibatch and its gradient by every logp.
"""
import json
import pathlib
import random
import struct

import torch

PATH = pathlib.Path(__file__).resolve().parent / "algorithms.json"
F64 = torch.float64


def exact(x):
    return struct.unpack("f", struct.pack("f", x))[0]


class Rows:
    """Padded columns [rows, longest]; `there` marks tokens, `mask` those that are targets."""

    def __init__(self, case):
        lengths = [len(r["logp"]) for r in case["rows"]]
        wide = lambda name: torch.tensor([r[name] + [0.0] * (max(lengths) - len(r[name])) for r in case["rows"]], dtype=F64)
        self.logp = wide("logp").requires_grad_(True)
        self.value, self.entropy = wide("value").requires_grad_(True), wide("entropy").requires_grad_(True)
        self.old_value = wide("old_value")
        self.old, self.ref, self.mask = wide("old_logp"), wide("ref_logp"), wide("mask")
        self.there = torch.tensor([[float(t < n) for t in range(max(lengths))] for n in lengths], dtype=F64)
        self.score = torch.tensor([r["score"] for r in case["rows"]], dtype=F64)
        self.prompt = torch.tensor([r["prompt"] for r in case["rows"]])
        self.lengths = torch.tensor(lengths, dtype=F64)

    def group_mean(self, x):
        same = (self.prompt[:, None] == self.prompt[None, :]).to(F64)
        return same @ x / same.sum(1)

    def group_sd(self, x):
        """Sample standard deviation within the prompt's answers."""
        same = (self.prompt[:, None] == self.prompt[None, :]).to(F64)
        return torch.sqrt((same * (x[None, :] - self.group_mean(x)[:, None]) ** 2).sum(1) / (same.sum(1) - 1))

    def whiten(self, x):
        """Over the target tokens of all rows, population variance."""
        n = self.mask.sum()
        mean = (x * self.mask).sum() / n
        variance = ((x - mean) ** 2 * self.mask).sum() / n
        return (x - mean) / torch.sqrt(variance + 1e-8)


def clipped(ratio, advantage, low, high):
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def ppo(r, o):
    """PPO with GAE (Schulman et al. 2016, equation 16); dual clip of Ye et al. 2020, equation 5; KL estimators of Schulman
    2020. Returns the whitened advantage and the mean over target tokens of policy + value loss - entropy bonus."""
    d = r.old - r.ref
    kl = {"k1": d, "k2": d**2 / 2, "k3": torch.exp(-d) - 1 + d}[o["kl_estimator"]]
    advantage, target = torch.zeros_like(r.old), torch.zeros_like(r.old)
    rewards = -o["kl_coef"] * kl
    for row in range(len(r.score)):
        rewards[row, int(r.lengths[row]) - 1] += r.score[row].clamp(-o["clip_reward"], o["clip_reward"])
    if o["whiten_rewards"]:  # TRL's masked_whiten with shift_mean=False, population variance
        rewards = r.whiten(rewards) + (rewards * r.mask).sum() / r.mask.sum()
    for row in range(len(r.score)):
        n = int(r.lengths[row])
        reward = rewards[row, :n]
        after = torch.cat([r.old_value[row, 1:n], torch.zeros(1, dtype=F64)])
        delta = reward + o["gamma"] * after - r.old_value[row, :n]
        for t in range(n):
            advantage[row, t] = sum((o["gamma"] * o["lambda"]) ** (k - t) * delta[k] for k in range(t, n))
        target[row, :n] = advantage[row, :n] + r.old_value[row, :n]
    advantage = r.whiten(advantage)
    policy = clipped(torch.exp(r.logp - r.old), advantage, o["clip_ratio"], o["clip_ratio"])
    if o["dual_clip"]:
        policy = torch.where(advantage < 0, torch.minimum(policy, -o["dual_clip"] * advantage), policy)
    bounded = r.old_value + (r.value - r.old_value).clamp(-o["clip_value"], o["clip_value"])
    value = 0.5 * torch.maximum((r.value - target) ** 2, (bounded - target) ** 2)
    token = policy + value - o["entropy_coef"] * r.entropy
    return advantage, (token * r.mask).sum() / r.mask.sum()


def grpo(r, o):
    """DeepSeekMath equations 3 and 4, with the loss's forms of Dr. GRPO and DAPO (equations 8 and 13)."""
    beyond = (r.lengths - (o["overlong_length"] - o["overlong_buffer"])) / o["overlong_buffer"]
    score = r.score - o["overlong_penalty"] * beyond.clamp(0, 1)
    advantage = score - r.group_mean(score)
    if o["scale_rewards"]:
        advantage = advantage / (r.group_sd(score) + 1e-4)
    advantage = advantage[:, None].expand_as(r.logp)
    high = o["clip_ratio_high"] or o["clip_ratio"]
    log_reference_ratio = r.ref - r.logp
    kl = torch.exp(log_reference_ratio) - log_reference_ratio - 1
    token = (clipped(torch.exp(r.logp - r.old), advantage, o["clip_ratio"], high) + o["kl_coef"] * kl) * r.mask
    if o["loss_type"] == "grpo":
        loss = (token.sum(1) / r.mask.sum(1)).mean()
    elif o["loss_type"] == "dapo":
        loss = token.sum() / r.mask.sum()
    else:
        loss = token.sum() / (len(r.score) * o["loss_length"])
    return advantage, loss


def rloo(r, o):
    """Back to Basics, section 3.2; the reward of an answer is its score less the summed k1 penalty."""
    reward = r.score - o["kl_coef"] * ((r.old - r.ref) * r.there).sum(1)
    same = (r.prompt[:, None] == r.prompt[None, :]).to(F64) - torch.eye(len(r.score), dtype=F64)
    advantage = reward - same @ reward / same.sum(1)
    wide = advantage[:, None].expand_as(r.logp)
    if o["normalize_advantage"]:
        wide = r.whiten(wide)
    ratio = torch.exp(((r.logp - r.old) * r.mask).sum(1))
    return wide, clipped(ratio, wide[:, 0], o["clip_ratio"], o["clip_ratio"]).mean()


def reinforce_pp(r, o):
    """REINFORCE++, equations 3 and 4 (A_t = r - beta sum of KL from t on), then global whitening; with a group baseline
    the mean is subtracted first and the KL is k2 in the loss."""
    grouped = o["baseline"] == "group"
    score = r.score - r.group_mean(r.score) if grouped else r.score
    advantage = torch.zeros_like(r.old)
    for row in range(len(score)):
        n = int(r.lengths[row])
        for t in range(n):
            advantage[row, t] = o["gamma"] ** (n - 1 - t) * score[row]
            if not grouped:
                for later in range(t, n):
                    advantage[row, t] -= o["gamma"] ** (later - t) * o["kl_coef"] * (r.old[row, later] - r.ref[row, later])
    advantage = r.whiten(advantage)
    token = clipped(torch.exp(r.logp - r.old), advantage, o["clip_ratio"], o["clip_ratio"])
    if grouped:
        token = token + o["kl_coef"] * 0.5 * (r.logp - r.ref) ** 2
    return advantage, (token * r.mask).sum() / r.mask.sum()


def gspo(r, o):
    """GSPO equations 5 to 7; the KL, where asked for, is the mean k3 of an answer's tokens."""
    advantage = (r.score - r.group_mean(r.score)) / (r.group_sd(r.score) + 1e-4)
    ratio = torch.exp(((r.logp - r.old) * r.mask).sum(1) / r.mask.sum(1))
    log_reference_ratio = r.ref - r.logp
    kl = ((torch.exp(log_reference_ratio) - log_reference_ratio - 1) * r.mask).sum(1) / r.mask.sum(1)
    loss = clipped(ratio, advantage, o["clip_ratio"], o["clip_ratio_high"]) + o["kl_coef"] * kl
    return advantage[:, None].expand_as(r.logp), loss.mean()


def dpo(r, o):
    """DPO equation 7, conservative with label smoothing; IPO equation 17 on mean log-ratios. Rows 2i, 2i + 1 are pairs."""
    log_ratio = ((r.logp - r.ref) * r.mask).sum(1)
    if o["loss_type"] == "ipo":
        log_ratio = log_ratio / r.mask.sum(1)
    margin = log_ratio[0::2] - log_ratio[1::2]
    if o["loss_type"] == "ipo":
        return None, ((margin - 1 / (2 * o["beta"])) ** 2).mean()
    log_sigmoid = torch.nn.functional.logsigmoid
    e = o["label_smoothing"]
    return None, (-(1 - e) * log_sigmoid(o["beta"] * margin) - e * log_sigmoid(-o["beta"] * margin)).mean()


GRPO = {"kl_coef": 0.04, "clip_ratio": 0.2, "clip_ratio_high": 0.0, "overlong_penalty": 0.0, "scale_rewards": True,
        "overlong_length": 128, "overlong_buffer": 32, "loss_type": "grpo", "loss_length": 128}
PPO = {"kl_coef": 0.1, "gamma": 1.0, "lambda": 0.95, "clip_ratio": 0.2, "clip_value": 0.2, "clip_reward": 5.0,
       "dual_clip": 0.0, "entropy_coef": 0.0, "kl_estimator": "k1", "whiten_rewards": False}
CASES = [
    ("ppo", ppo, PPO),
    ("ppo", ppo, {**PPO, "kl_estimator": "k2", "gamma": 0.97, "lambda": 0.9, "dual_clip": 1.1, "entropy_coef": 0.02}),
    ("ppo", ppo, {**PPO, "kl_estimator": "k3", "kl_coef": 0.5, "clip_reward": 0.5, "entropy_coef": 0.1}),
    ("grpo", grpo, GRPO),
    ("grpo", grpo, {**GRPO, "loss_type": "dr_grpo", "scale_rewards": False, "loss_length": 16}),
    ("grpo", grpo, {**GRPO, "loss_type": "dapo", "clip_ratio_high": 0.28, "kl_coef": 0.0, "overlong_penalty": 0.7,
                    "overlong_length": 7, "overlong_buffer": 4}),
    ("rloo", rloo, {"kl_coef": 0.05, "clip_ratio": 0.2, "normalize_advantage": False}),
    ("rloo", rloo, {"kl_coef": 0.3, "clip_ratio": 0.5, "normalize_advantage": True}),
    ("reinforce++", reinforce_pp, {"kl_coef": 0.05, "clip_ratio": 0.2, "gamma": 1.0, "baseline": "none"}),
    ("reinforce++", reinforce_pp, {"kl_coef": 0.2, "clip_ratio": 0.2, "gamma": 0.9, "baseline": "none"}),
    ("reinforce++", reinforce_pp, {"kl_coef": 0.05, "clip_ratio": 0.2, "gamma": 1.0, "baseline": "group"}),
    ("gspo", gspo, {"clip_ratio": 3e-4, "clip_ratio_high": 4e-4, "kl_coef": 0.0}),
    ("gspo", gspo, {"clip_ratio": 0.1, "clip_ratio_high": 0.2, "kl_coef": 0.1}),
    ("dpo", dpo, {"beta": 0.1, "label_smoothing": 0.0, "loss_type": "sigmoid"}),
    ("dpo", dpo, {"beta": 0.5, "label_smoothing": 0.1, "loss_type": "sigmoid"}),
    ("dpo", dpo, {"beta": 0.1, "label_smoothing": 0.0, "loss_type": "ipo"}),
    ("ppo", ppo, {**PPO, "whiten_rewards": True, "kl_coef": 0.3}),
]


def rows(r, pairs):
    """Three prompts with four answers of 1 to 9 tokens; some answers hold tokens that are no targets."""
    result = []
    for i in range(12):
        n = r.randrange(1, 10)
        old = [exact(-r.expovariate(0.6)) for _ in range(n)]
        mask = [1.0] * n
        if n > 3 and i % 3 == 0 and not pairs:
            mask[r.randrange(1, n - 1)] = 0.0
        result.append({"prompt": i // (2 if pairs else 4), "old_logp": old, "mask": mask, "score": exact(r.gauss(0, 1.5)),
                       "old_value": [exact(r.gauss(0, 1)) for _ in old], "entropy": [exact(r.expovariate(1)) for _ in old],
                       "ref_logp": [exact(x + r.gauss(0, 0.3)) for x in old],
                       "logp": [exact(min(-1e-3, x + r.gauss(0, 0.25))) for x in old]})
        result[-1]["value"] = [exact(v + r.gauss(0, 0.3)) for v in result[-1]["old_value"]]
    return result


def main():
    r, cases = random.Random(11), []
    for name, function, options in CASES:
        case = {"algorithm": name, "options": options, "rows": rows(r, name == "dpo")}
        columns = Rows(case)
        advantage, loss = function(columns, options)
        loss.backward()
        ragged = lambda x: [x[i, : len(row["logp"])].tolist() for i, row in enumerate(case["rows"])]
        case["loss"], case["d_logp"] = loss.item(), ragged(columns.logp.grad)
        if columns.value.grad is not None:
            case["d_value"], case["d_entropy"] = ragged(columns.value.grad), ragged(columns.entropy.grad)
        if advantage is not None:
            case["advantage"] = ragged(advantage)
        cases.append(case)
    PATH.write_text("[" + ",\n".join(json.dumps(case) for case in cases) + "]\n")
    print(f"algorithms.json: {len(cases)} cases")


if __name__ == "__main__":
    main()
