#!/usr/bin/env python3
"""Writes losses.json: float64 values and derivatives of the loss of one token or pair, for random inputs.

    python3 loss_reference.py

Each formula is worked out by hand here with its derivatives, in Python's own doubles, and held against
PyTorch's autograd of the plain definition. Inputs are exact in float32, so that code on float32 columns sees
the same ones. They keep off the points where max() or clip() has a kink, the clip edges 1e-4 to either side,
except that logp = old_logp (ratio 1) and value = old_value are there.
"""
import json
import math
import pathlib
import random
import struct

import torch

PATH = pathlib.Path(__file__).resolve().parent / "losses.json"
AGREEMENT = 1e-12  # of the two ways, relative to the larger of 1 and the value
EDGE = 1e-4        # far more than float32 columns round
SETTINGS = ("clip_ratio", "clip_value")  # doubles wherever they are used


def clip(x, low, high):
    return min(max(x, low), high)


def softplus(x):
    """-log sigmoid(-x), without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def sigmoid(x):
    return math.exp(-softplus(-x))


# --- PPO, one token ----------------------------------------------------------------------------------------------


def ppo_token(logp, old_logp, advantage, value, old_value, target, clip_ratio, clip_value):
    """policy = max(-A r, -A clip(r)), value_loss = 0.5 max((V-T)^2, (clip(V)-T)^2); d/dlogp and d/dvalue."""
    ratio = math.exp(logp - old_logp)
    low, high = 1 - clip_ratio, 1 + clip_ratio
    policy = max(-advantage * ratio, -advantage * clip(ratio, low, high))
    stopped = (advantage > 0 and ratio > high) or (advantage < 0 and ratio < low)
    bounded = clip(value, old_value - clip_value, old_value + clip_value)
    far = (bounded - target) ** 2 > (value - target) ** 2  # then the loss is flat: only the bounded value counts
    value_loss = 0.5 * max((value - target) ** 2, (bounded - target) ** 2)
    return {"policy_loss": policy, "value_loss": value_loss, "loss": policy + value_loss,
            "d_logp": 0.0 if stopped else -advantage * ratio, "d_value": 0.0 if far else value - target}


def ppo_token_autograd(**given):
    t = {name: torch.tensor(v, dtype=torch.float64, requires_grad=name in ("logp", "value"))
         for name, v in given.items()}
    ratio = (t["logp"] - t["old_logp"]).exp()
    policy = torch.maximum(-t["advantage"] * ratio,
                           -t["advantage"] * ratio.clamp(1 - t["clip_ratio"], 1 + t["clip_ratio"]))
    bounded = t["value"].clamp(t["old_value"] - t["clip_value"], t["old_value"] + t["clip_value"])
    value = 0.5 * torch.maximum((t["value"] - t["target"]) ** 2, (bounded - t["target"]) ** 2)
    (policy + value).backward()
    return {"policy_loss": policy.item(), "value_loss": value.item(), "loss": (policy + value).item(),
            "d_logp": t["logp"].grad.item(), "d_value": t["value"].grad.item()}


def ppo_inputs(r):
    for i in range(48):
        clip_ratio, clip_value = r.choice([(0.2, 0.2), (0.1, 0.5), (0.3, 0.05)])
        old_logp, old_value, advantage = -r.expovariate(0.4), r.gauss(0, 1), r.gauss(0, 1.5)
        logp, value, target = old_logp + r.gauss(0, 0.3), old_value + r.gauss(0, 0.3), old_value + r.gauss(0, 1)
        if i < 8:     # the ratio just inside or outside either edge, for gains and losses
            edge = (1 - clip_ratio if i & 1 else 1 + clip_ratio) + (EDGE if i & 2 else -EDGE)
            logp, advantage = old_logp + math.log(edge), abs(advantage) * (1 if i & 4 else -1)
        elif i < 16:  # the value likewise, with its target above or below
            edge = (-clip_value if i & 1 else clip_value) + (EDGE if i & 2 else -EDGE)
            value, target = old_value + edge, old_value + (2 if i & 4 else -2)
        elif i < 20:  # before the first update
            logp, value = old_logp, old_value
        elif i < 22:  # far away
            logp, value = old_logp + (4 if i & 1 else -4), old_value + (30 if i & 1 else -30)
        yield dict(logp=logp, old_logp=old_logp, advantage=advantage, value=value, old_value=old_value,
                   target=target, clip_ratio=clip_ratio, clip_value=clip_value)


# --- reward pairs ------------------------------------------------------------------------------------------------


def pair_end(chosen, rejected):
    """-log sigmoid(c - r)."""
    slope = sigmoid(rejected - chosen)
    return {"loss": softplus(rejected - chosen), "d_chosen": -slope, "d_rejected": slope}


def pair_end_autograd(chosen, rejected):
    c, r = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (chosen, rejected))
    loss = -torch.nn.functional.logsigmoid(c - r)
    loss.backward()
    return {"loss": loss.item(), "d_chosen": c.grad.item(), "d_rejected": r.grad.item()}


def pair_token(chosen_ids, rejected_ids, chosen_values, rejected_values):
    """Mean over t from the first difference to the longer end; past its end an answer keeps its last value."""
    longer, shorter = (max(len(chosen_ids), len(rejected_ids)), min(len(chosen_ids), len(rejected_ids)))
    first = next((t for t in range(shorter) if chosen_ids[t] != rejected_ids[t]), shorter)
    loss, d_chosen, d_rejected = 0.0, [0.0] * len(chosen_ids), [0.0] * len(rejected_ids)
    for t in range(first, longer):
        c, r = min(t, len(chosen_ids) - 1), min(t, len(rejected_ids) - 1)
        term = pair_end(chosen_values[c], rejected_values[r])
        loss += term["loss"] / (longer - first)
        d_chosen[c] += term["d_chosen"] / (longer - first)
        d_rejected[r] += term["d_rejected"] / (longer - first)
    return {"first": first, "loss": loss, "d_chosen": d_chosen, "d_rejected": d_rejected}


def pair_token_autograd(chosen_ids, rejected_ids, chosen_values, rejected_values):
    c, r = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (chosen_values, rejected_values))
    longer = max(len(c), len(r))
    wide = [torch.cat([x, x[-1:].expand(longer - len(x))]) for x in (c, r)]
    ids = [torch.tensor(x + [-1] * (longer - len(x))) for x in (chosen_ids, rejected_ids)]
    first = (ids[0] != ids[1]).nonzero()[0].item()
    loss = -torch.nn.functional.logsigmoid(wide[0][first:] - wide[1][first:]).mean()
    loss.backward()
    return {"first": first, "loss": loss.item(), "d_chosen": c.grad.tolist(), "d_rejected": r.grad.tolist()}


def pair_token_inputs(r):
    for i in range(16):
        shared, chosen, rejected = r.randrange(0, 6), r.randrange(1, 7), r.randrange(1, 7)
        if i < 4:  # one answer is the other's beginning
            shared, chosen, rejected = shared + 1, (0 if i & 1 else chosen), (rejected if i & 1 else 0)
        begin = [r.randrange(3, 50) for _ in range(shared)]
        ids = [begin + [side] * (n > 0) + [r.randrange(3, 50) for _ in range(n - 1)]
               for side, n in ((50, chosen), (51, rejected))]
        yield dict(chosen_ids=ids[0], rejected_ids=ids[1], chosen_values=[r.gauss(0, 2) for _ in ids[0]],
                   rejected_values=[r.gauss(0, 2) for _ in ids[1]])


# --- SFT, one token ----------------------------------------------------------------------------------------------


def sft_token(logp):
    return {"loss": -logp, "d_logp": -1.0}


def sft_token_autograd(logp):
    x = torch.tensor(logp, dtype=torch.float64, requires_grad=True)
    (-x).backward()
    return {"loss": (-x).item(), "d_logp": x.grad.item()}


def flat(value):
    return value if isinstance(value, list) else [value]


def exact_in_float32(value):
    if isinstance(value, list):
        return [exact_in_float32(v) for v in value]
    return struct.unpack("f", struct.pack("f", value))[0] if isinstance(value, float) else value


def cases(function, autograd, inputs):
    for drawn in inputs:
        given = {name: v if name in SETTINGS else exact_in_float32(v) for name, v in drawn.items()}
        by_hand, by_torch = function(**given), autograd(**given)
        for name, value in by_hand.items():
            for a, b in zip(flat(value), flat(by_torch[name]), strict=True):
                assert abs(a - b) <= AGREEMENT * max(1.0, abs(b)), (function.__name__, name, given, a, b)
        yield {**given, **by_hand}


def main():
    r = random.Random(7)
    ends = [dict(chosen=r.gauss(0, 2), rejected=r.gauss(0, 2)) for _ in range(24)]
    ends += [dict(chosen=c, rejected=j) for c, j in [(1.5, 1.5), (40.0, -40.0), (-40.0, 40.0), (800.0, -800.0)]]
    golden = {
        "ppo_token": list(cases(ppo_token, ppo_token_autograd, ppo_inputs(r))),
        "pair_end": list(cases(pair_end, pair_end_autograd, ends)),
        "pair_token": list(cases(pair_token, pair_token_autograd, pair_token_inputs(r))),
        "sft_token": list(cases(sft_token, sft_token_autograd, [dict(logp=-r.expovariate(0.5)) for _ in range(8)])),
    }
    groups = [f'"{name}": [\n{",".join(chr(10) + json.dumps(case) for case in group)[1:]}\n]'
              for name, group in golden.items()]
    PATH.write_text("{" + ",\n".join(groups) + "}\n")
    print("losses.json:", ", ".join(f"{len(group)} {name}" for name, group in golden.items()))


if __name__ == "__main__":
    main()
