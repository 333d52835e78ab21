#!/usr/bin/env python3
"""Does transformers compute from saved directories what golden files hold?

    python3 check_saved.py DIR GOLDEN.json [DIR GOLDEN.json …]     # a line each; exit code 0 when all are within 1e-4
"""
import json
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

TOLERANCE = 1e-4  # the parity asked of float32 log-probabilities


@torch.no_grad()
def values(model, kind, ids):
    batch = torch.tensor([ids])
    logits = model(batch).logits[0]
    if kind == "reward":
        return logits
    return logits[:-1].log_softmax(-1).gather(-1, batch[0, 1:, None]).squeeze(-1)


def main(folder, golden_path):
    golden = json.load(open(golden_path))
    kind = golden["kind"]
    loader = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    model, loading = loader.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading[problem]:
            return f"{folder}: {problem}: {', '.join(map(str, loading[problem]))}", 1
    worst, count = 0.0, 0
    for case in golden["cases"]:
        expected = torch.tensor([case["reward"]] if kind == "reward" else case["logprobs"])
        difference = (values(model.eval(), kind, case["input_ids"]) - expected).abs()
        worst = max([worst, *difference.nan_to_num(float("inf")).tolist()])
        count += len(expected)
    verdict = "equal" if worst <= TOLERANCE else "DIFFERENT"
    return f"{folder}: {verdict}: {count} values, largest difference {worst:.2e}", int(worst > TOLERANCE)


if __name__ == "__main__":
    if len(sys.argv) < 3 or len(sys.argv) % 2 == 0:
        sys.exit(__doc__)
    transformers.utils.logging.disable_progress_bar()
    worst = 0
    for folder, golden_path in zip(sys.argv[1::2], sys.argv[2::2]):
        line, code = main(folder, golden_path)
        print(line, flush=True)
        worst = max(worst, code)
    sys.exit(worst)
