"""What the tests of adapters compare: log-probs and rewards of a directory, by the engine and by transformers; and what a
tiny model needs to be trained.

  program = Program(binary, scratch)
  expect_close("merged", program.score(folder), scores_of(model), 1e-4)
"""
import json
import pathlib
import random
import subprocess

import torch

IDS = [[random.Random(n).randrange(3, 97) for _ in range(n)] for n in (2, 7, 30, 64)]
WORDS = [f"word{i} is {i * 7 % 31}" for i in range(48)]


class Program:
    def __init__(self, binary, scratch):
        self.binary, self.scratch = str(pathlib.Path(binary).resolve()), pathlib.Path(scratch)

    def run(self, *arguments):
        done = subprocess.run([self.binary, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

    def score(self, directory, kind="language"):
        given, out = self.scratch / "ids.jsonl", self.scratch / "scored.jsonl"
        given.write_text("".join(json.dumps({"input_ids": i}) + "\n" for i in IDS))
        self.run("score", "--reward" if kind == "reward" else "--model", directory, "--input", given, "--output", out)
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        return torch.tensor([x for line in lines for x in ([line["reward"]] if kind == "reward" else line["logprobs"])])


def scores_of(model, kind="language"):
    """The same of a model of transformers or PEFT."""
    model.eval()
    numbers = []
    with torch.no_grad():
        for ids in IDS:
            ids = torch.tensor([ids])
            logits = model(input_ids=ids).logits.float()
            if kind == "reward":
                numbers.append(logits[0].reshape(-1)[-1:])
            else:
                numbers.append(torch.log_softmax(logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0])
    return torch.cat(numbers)


def expect_close(name, a, b, tolerance):
    difference = (a - b).abs().max().item()
    assert a.shape == b.shape and difference <= tolerance, f"{name}: {difference}"
    print(f"{name}: largest difference {difference:.1e}")


def write_data(folder):
    """A tokenizer of single characters, and records of a few."""
    special = [{"id": i, "content": t, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False} for i, t in enumerate(("<pad>", "<s>", "</s>"))]
    vocabulary = {t["content"]: t["id"] for t in special} | {chr(32 + i): 3 + i for i in range(94)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    (folder / "tokenizer.json").write_text(json.dumps(
        {"version": "1.0", "added_tokens": special, "normalizer": None, "pre_tokenizer": None, "post_processor": None,
         "decoder": {"type": "Fuse"}, "model": model}))
    (folder / "sft.jsonl").write_text("".join(json.dumps({"prompt": w[:6], "completion": w[6:]}) + "\n" for w in WORDS))
    (folder / "pairs.jsonl").write_text("".join(
        json.dumps({"prompt": w[:6], "chosen": w[6:], "rejected": w[::-1][:5]}) + "\n" for w in WORDS))
