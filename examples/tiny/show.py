#!/usr/bin/env python3
"""Shows what a run of rlhf_tiny.toml did: losses, the reward model's accuracy, the reward curve, KL.

    python3 show.py runs/rlhf_tiny                 # text
    python3 show.py runs/rlhf_tiny --svg curve.svg # and the reward curve as a picture; more runs are drawn together

Python's standard library only.
"""
import argparse
import json
import pathlib
import sys

COLOURS = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd"]


def lines(path):
    if not path.exists():
        sys.exit(f"show.py: {path} is missing: run the stages first")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def mean(values):
    return sum(values) / len(values)


def show_supervised(run):
    steps = lines(run / "sft/metrics.jsonl")
    evals = lines(run / "sft/eval.jsonl")
    print(f"sft      loss {steps[0]['loss']:.3f} -> {mean([s['loss'] for s in steps[-20:]]):.3f} in {len(steps)} steps, "
          f"held out {evals[0]['eval_loss']:.3f} -> {evals[-1]['eval_loss']:.3f}")
    evals = lines(run / "reward/eval.jsonl")
    accuracy, rows = evals[-1]["eval_accuracy"], evals[-1]["eval_rows"]
    error = (accuracy * (1 - accuracy) / rows) ** 0.5
    print(f"reward   held-out accuracy {evals[0]['eval_accuracy']:.3f} -> {accuracy:.3f} +- {error:.3f} ({rows} pairs)")


def show_ppo(run):
    evals, steps = lines(run / "ppo/eval.jsonl"), lines(run / "ppo/metrics.jsonl")
    top = max(e["eval_reward"] for e in evals)
    low = min(0.0, min(e["eval_reward"] for e in evals))
    print(f"ppo      held-out reward, sampled ({evals[0]['eval_rows']} prompts, in standard deviations of the reward model)")
    for e in evals:
        kl = next((s["kl"] for s in steps if s["step"] == e["step"]), 0.0)
        bar = "#" * round(40 * (e["eval_reward"] - low) / max(1e-9, top - low))
        print(f"  step {e['step']:4d} {e['eval_reward']:7.3f} +- {e['eval_reward_standard_error']:.3f}  KL {kl:5.2f}  {bar}")
    print(f"  largest KL to the SFT model in training: {max(s['kl'] for s in steps):.2f} nats a reply; "
          f"largest difference of rollout and training log-probs: {max(s['rollout_logp_difference_max'] for s in steps):.1e}")


def svg(runs, path):
    """Held-out reward by PPO step, a line a run, standard errors shaded."""
    width, height, left, bottom, top, right = 640, 360, 60, 50, 30, 20
    data = [(run.name, lines(run / "ppo/eval.jsonl")) for run in runs]
    last = max(e["step"] for _, evals in data for e in evals)
    values = [e["eval_reward"] + s * e["eval_reward_standard_error"] for _, evals in data for e in evals for s in (-1, 1)]
    low, high = min(0.0, *values), max(values) * 1.05
    x = lambda step: left + (width - left - right) * step / last
    y = lambda value: height - bottom - (height - bottom - top) * (value - low) / (high - low)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="{left}" y="18" font-size="14">PPO on the tiny task: reward of answers to held-out prompts</text>']
    ticks = [i / 4 for i in range(-8, 21) if low <= i / 4 <= high]
    out += [f'<line x1="{left}" x2="{width - right}" y1="{y(t):.1f}" y2="{y(t):.1f}" stroke="#ddd"/>'
            f'<text x="{left - 8}" y="{y(t) + 4:.1f}" text-anchor="end">{t:g}</text>' for t in ticks]
    out += [f'<text x="{x(s):.1f}" y="{height - bottom + 18}" text-anchor="middle">{s:g}</text>'
            for s in sorted({round(last * i / 5) for i in range(6)})]
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 10}" text-anchor="middle">PPO step (64 rollouts each)</text>')
    out.append(f'<text x="16" y="{(top + height - bottom) / 2}" text-anchor="middle" '
               f'transform="rotate(-90 16 {(top + height - bottom) / 2})">reward (sd), sampled</text>')
    for i, (name, evals) in enumerate(data):
        colour = COLOURS[i % len(COLOURS)]
        edge = [f"{x(e['step']):.1f},{y(e['eval_reward'] + e['eval_reward_standard_error']):.1f}" for e in evals]
        edge += [f"{x(e['step']):.1f},{y(e['eval_reward'] - e['eval_reward_standard_error']):.1f}" for e in reversed(evals)]
        out.append(f'<polygon points="{" ".join(edge)}" fill="{colour}" opacity="0.15"/>')
        points = " ".join(f"{x(e['step']):.1f},{y(e['eval_reward']):.1f}" for e in evals)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{width - right - 130}" y="{height - bottom - 14 - 16 * (len(data) - 1 - i)}" fill="{colour}">{name}</text>')
    path.write_text("\n".join(out + ["</svg>"]) + "\n", encoding="utf-8")
    print(f"curve    {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    parser.add_argument("--svg", type=pathlib.Path)
    args = parser.parse_args()
    for run in args.runs:
        show_supervised(run)
        show_ppo(run)
    if args.svg:
        svg(args.runs, args.svg)


if __name__ == "__main__":
    main()
