"""dsengine eval and export on a tiny run: eval_test.py BINARY

Losses, accuracies and rewards are computed once more from `tokenize`, `score` and the answers themselves; an export holds
what it should: the final weights or their average, rounded, in files of the size asked for.
"""
import json
import math
import pathlib
import subprocess
import sys
import tempfile

BINARY = str(pathlib.Path(sys.argv[1]).resolve())
TINY = pathlib.Path(__file__).resolve().parent.parent.parent / "examples/tiny"


def dsengine(*arguments, fails=False):
    done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True)
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    if fails:
        *before, last = done.stderr.splitlines()
        assert last.startswith("dsengine: error: ") and all(b.startswith("[") for b in before), done.stderr
    return done.stdout


def lines(command, folder, rows, *arguments):
    given = folder / "given.jsonl"
    given.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return [json.loads(line) for line in dsengine(command, *arguments, "--input", given, "--output", "-").splitlines()]


def records(name, count):
    return [json.loads(line) for line in (TINY / "data" / name).read_text().splitlines()[:count]]


def mean_and_error(values):
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))


def expect(name, got, mean, error):
    assert abs(got["mean"] - mean) < 1e-5 and abs(got["standard_error"] - error) < 1e-5, (name, got, mean, error)


def check_eval(folder, run):
    sft, other, reward = run / "sft/model", run / "sft/ema", run / "reward/model"
    ids = lambda texts, key: [r["input_ids"] for r in lines("tokenize", folder, [{key: t} for t in texts], "--model", sft)]
    user = lambda rows: [[{"role": "user", "content": r["prompt"]}] for r in rows]

    # Loss on completions: the answer's tokens and its end.
    rows = records("sft.jsonl", 12)
    prompts, answers = ids(user(rows), "messages"), ids([" " + r["completion"] for r in rows], "text")
    sequences = [p + a[1:] + [1] for p, a in zip(prompts, answers)]
    out = folder / "eval.json"
    arguments = ["--data", TINY / "data/sft.jsonl", "--rows", 12, "--max-new-tokens", 8, "--output", out]
    text = dsengine("eval", "--model", sft, "--other", other, *arguments)
    result = json.loads(out.read_text())
    by_record = []
    for which, model in enumerate((sft, other)):
        scored = lines("score", folder, [{"input_ids": s} for s in sequences], "--model", model)
        own = [[-x for x in line["logprobs"][len(p) - 1:]] for line, p in zip(scored, prompts)]
        tokens = sum(map(len, own))
        loss = sum(map(sum, own)) / tokens
        assert abs(result["loss"][which]["mean"] - loss) < 1e-5 and result["loss"][which]["tokens"] == tokens
        by_record.append([sum(o) / len(o) for o in own])
    expect("loss", result["loss_difference"], *mean_and_error([b - a for a, b in zip(*by_record)]))
    assert len(result["samples"]) == 12 and len(result["samples"][0]["replies"]) == 2 and "reward" not in result
    assert text.count("\nprompt\n") == 3 and "perplexity" in text

    # Accuracy on pairs.
    pairs = records("pairs_heldout.jsonl", 40)
    prompts = ids(user(pairs), "messages")
    sequences = [p + a[1:] + [1] for kind in ("chosen", "rejected") for p, a in zip(prompts, ids([" " + r[kind] for r in pairs], "text"))]
    values = [r["reward"] for r in lines("score", folder, [{"input_ids": s} for s in sequences], "--reward", reward)]
    margins = [a - b for a, b in zip(values[:40], values[40:])]
    dsengine("eval", "--reward-model", reward, "--data", TINY / "data/pairs_heldout.jsonl", "--rows", 40, "--output", out)
    result = json.loads(out.read_text())
    expect("accuracy", result["accuracy"], *mean_and_error([0.5 + 0.5 * ((m > 0) - (m < 0)) for m in margins]))
    expect("margin", result["margin"], *mean_and_error(margins))

    # Rewards of answers, by a rule that can be followed here.
    dsengine("eval", "--model", sft, "--other", other, "--reward", "match", "--reward-option", "kind=regex", "--reward-option",
             "pattern=e", "--reward-option", "right_score=2.5", "--data", TINY / "data/prompts_heldout.jsonl", "--rows", 30,
             "--max-new-tokens", 4, "--output", out)
    result = json.loads(out.read_text())
    rewards = [[2.5 * ("e" in s["replies"][m]) for s in result["samples"]] for m in (0, 1)]
    assert [s["rewards"] for s in result["samples"]] == [list(r) for r in zip(*rewards)] and 0 < sum(rewards[0]) < 75
    for m in (0, 1):
        expect("reward", result["reward"][m], *mean_and_error(rewards[m]))
    gain = [b - a for a, b in zip(*rewards)]
    expect("gain", result["reward_difference"], *mean_and_error(gain))
    assert (result["better"], result["equal"], result["worse"]) == tuple(sum(map(f, gain)) for f in
                                                                         (lambda d: d > 0, lambda d: d == 0, lambda d: d < 0))
    dsengine("eval", "--data", TINY / "data/prompts.jsonl", fails=True)
    dsengine("eval", "--model", sft, "--data", TINY / "data/prompts.jsonl", fails=True)
    dsengine("eval", "--model", sft, "--data", folder / "nowhere.jsonl", fails=True)
    dsengine("eval", "--model", sft, "--data", TINY / "data/sft.jsonl", "--reward", "match", "--reward-option", "patern=e", fails=True)


def check_conversations(folder, run):
    """What training takes, eval takes: turns beside a prompt, conversations that end with the user, pairs in every form."""
    sft, reward, out = run / "sft/model", run / "reward/model", folder / "eval.json"
    user, assistant = lambda text: {"role": "user", "content": text}, lambda text: {"role": "assistant", "content": text}

    def evaluate(rows, *arguments, **settings):
        (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        out.unlink(missing_ok=True)
        dsengine("eval", "--data", folder / "rows.jsonl", "--max-new-tokens", 4, "--output", out, *arguments, **settings)
        return json.loads(out.read_text()) if out.exists() else None

    rows = records("sft.jsonl", 4)
    turns = [[user(r["prompt"]), assistant(r["completion"])] for r in rows]
    loss = evaluate(rows, "--model", sft)["loss"]
    assert evaluate([{"messages": t} for t in turns], "--model", sft)["loss"] == loss
    assert evaluate([{"prompt": r["prompt"], "messages": t} for r, t in zip(rows, turns)], "--model", sft)["loss"] == loss
    assert evaluate([*rows, {"prompt": "Hi", "completion": "No", "label": False}], "--model", sft)["loss"] == loss

    match = ["--model", sft, "--reward", "match", "--reward-option", "kind=regex", "--reward-option", "pattern=e"]
    asked = evaluate([{"prompt": r["prompt"]} for r in rows], *match)
    for given in ([{"messages": t[:1]} for t in turns], [{"prompt": r["prompt"], "messages": t[:1]} for r, t in zip(rows, turns)],
                  [{"messages": t[:1]} for t in turns[:2]] + [{"messages": t} for t in turns[2:]]):
        result = evaluate(given, *match)
        assert result["reward"] == asked["reward"] and result["samples"] == asked["samples"] and "loss" not in result, result
    result = evaluate([{"messages": t} for t in turns], *match)
    assert result["reward"] == asked["reward"] and result["loss"] == loss
    evaluate([{"messages": t[:1]} for t in turns], "--model", sft, fails=True)

    pairs = records("pairs_heldout.jsonl", 12)
    plain = evaluate(pairs, "--model", sft, "--reward-model", reward)
    whole = lambda p, kind: [user(p["prompt"]), assistant(p[kind])]
    text = lambda p, kind: f"\n\nHuman: {p['prompt']}\n\nAssistant: {p[kind]}"
    for form in (lambda p: {k: whole(p, k) for k in ("chosen", "rejected")},
                 lambda p: {"prompt": p["prompt"], "messages": whole(p, "chosen"), **{k: whole(p, k) for k in ("chosen", "rejected")}},
                 lambda p: {"prompt": [user(p["prompt"])], **{k: [assistant(p[k])] for k in ("chosen", "rejected")}},
                 lambda p: {"messages": [user(p["prompt"])], "chosen": p["chosen"], "rejected": p["rejected"]},
                 lambda p: {k: text(p, k) for k in ("chosen", "rejected")}):
        result = evaluate([form(p) for p in pairs], "--model", sft, "--reward-model", reward)
        assert all(result[k] == plain[k] for k in ("loss", "accuracy", "margin", "reward")), (form(pairs[0]), result, plain)


def check_export(folder, run):
    weights = lambda directory: (directory / "model.safetensors").read_bytes()
    dsengine("export", "--model", run / "sft", "--output", folder / "final")
    dsengine("export", "--model", run / "sft", "--output", folder / "ema", "--weights", "ema")
    assert weights(folder / "final") == weights(run / "sft/model") != weights(run / "sft/ema") == weights(folder / "ema")
    dsengine("export", "--model", run / "sft/model", "--output", folder / "bf16", "--dtype", "bf16", "--shard-size", "300KB")
    index = json.loads((folder / "bf16/model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) >= 3 and all((folder / "bf16" / f).stat().st_size < 310_000 for f in files), files
    assert json.loads((folder / "bf16/config.json").read_text())["dtype"] == "bfloat16"
    given = [{"input_ids": [0, 5, 9, 30, 31]}]
    rounded = lines("score", folder, given, "--model", run / "sft/model", "--dtype", "bf16")
    assert lines("score", folder, given, "--model", folder / "bf16") == rounded != lines("score", folder, given, "--model", folder / "final")
    assert (folder / "bf16/tokenizer.json").read_bytes() == (TINY / "model/tokenizer.json").read_bytes()
    dsengine("export", "--model", run / "reward", "--output", folder / "reward")
    assert json.loads((folder / "reward/config.json").read_text())["architectures"] == ["LlamaForSequenceClassification"]
    dsengine("export", "--model", run / "sft", "--output", folder / "final", fails=True)
    dsengine("export", "--model", run / "reward", "--output", folder / "x", "--weights", "ema", fails=True)
    dsengine("export", "--model", run / "sft", "--output", folder / "x", "--shard-size", "five", fails=True)
    assert not (folder / "x").exists()


def main():
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        run = scratch / "run"
        dsengine("--plugin", "reward", "--set", f"output_dir={run}", "--set", "stage.sft.max_steps=30", "--set", "mini_batch_size=16",
                 "--set", "stage.sft.ema_decay=0.9", "--set", "stage.reward.max_steps=8", "--set", "eval_rows=4")
        check_eval(scratch, run)
        check_conversations(scratch, run)
        check_export(scratch, run)


main()
