"""dsengine's log-probs (1e-4; with bfloat16 weights too) and greedy tokens against transformers' golden values: parity.py BINARY GOLDEN_DIR."""
import json, pathlib, subprocess, sys, tempfile

binary, directory = sys.argv[1], pathlib.Path(sys.argv[2])
cases = json.loads((directory / "golden.json").read_text())["cases"]
with tempfile.TemporaryDirectory() as folder:
    work = pathlib.Path(folder)
    (work / "in").write_text("".join(json.dumps({"input_ids": c["input_ids"]}) + "\n" for c in cases))
    def run(command, *extra):
        subprocess.run([binary, command, "--model", directory, "--input", work / "in", "--output", work / "out", *extra], check=True)
        return [json.loads(line) for line in (work / "out").read_text().splitlines()]
    worst = max(abs(a - b) for c, o in zip(cases, run("score")) for a, b in zip(c["logprobs"], o["logprobs"], strict=True))
    assert worst <= 1e-4, worst
    stored = max(abs(a - b) for c, o in zip(cases, run("score", "--dtype", "bf16"))
                 for a, b in zip(c.get("logprobs_bf16", c["logprobs"]), o["logprobs"], strict=True))
    assert stored <= 1e-4, stored  # arithmetic is float32; 5e-2 would do for bfloat16's own
    for slots in ("1", "8"):
        for c, o in zip(cases, run("generate", "--max-new-tokens", str(len(cases[0]["greedy"])), "--temperature", "0", "--ignore-eos", "--slots", slots), strict=True):
            assert c["greedy"] == o["output_ids"], (slots, c, o)
print(f"{directory.name}: log-probs within {worst:.2e}, with bfloat16 weights {stored:.2e}, greedy tokens equal")
