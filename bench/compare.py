#!/usr/bin/env python3
"""dsengine beside what else does the same work on this machine, in turn: how many times as fast it is.

  bench/compare.py --models FOLDER [--python FILE] [--rounds N] [--only TEXT]…
  # needs: cmake --build --preset release. --python: an interpreter with transformers (.deps/venv/bin/python), and for the
  # rows of llama.cpp with llama-cpp-python and gguf. The models are made in FOLDER, which is kept.

Each round runs the peer's script of bench/peers and `dsengine bench`, the order alternating; of some rows both sides are
dsengine, at other work. Before anything is timed the
results are compared: greedy tokens, or the first step's loss to 1e-4. Results: bench/results/peers.jsonl and the table of
bench/README.md.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results/peers.jsonl"
GENERATE, TRAIN = "transformers_generate.py", "transformers_train.py"


def case(what, peer, script, command, model, key, more="", peer_more="", own=""):
    """more: options of both sides. Without a script the peer is dsengine too."""
    return {"what": what, "peer": peer, "script": script, "command": command, "model": model, "key": key,
            "options": more.split(), "peer_options": peer_more.split(), "own_options": own.split()}


def generate(model, batch, prompt, new, peers=("transformers",), key="decode_tokens_per_s", weights="fp32"):
    shape = f"--batch {batch} --prompt {prompt} --new {new}"
    name = {"decode_tokens_per_s": "decode", "prefill_tokens_per_s": "prefill", "tokens_per_s": "generate"}[key]
    for peer in peers:
        script = GENERATE if peer == "transformers" else "llamacpp_generate.py"
        narrow = "" if weights == "fp32" else " " + weights
        yield case(f"{name} {model} B={batch} {prompt}+{new}{narrow}", peer, script, "generate", model, key, shape,
                   "" if peer == "transformers" else "--type " + peer.split()[1], f"--weights {weights}")


CASES = [
    *generate("llama-110m", 1, 128, 128, ("transformers", "llama.cpp f32")),
    *generate("opt-125m", 1, 128, 128),
    *generate("llama-110m", 8, 128, 128, ("transformers", "llama.cpp f32")),
    *generate("llama-110m", 1, 128, 128, ("llama.cpp f16",), weights="bf16"),
    *generate("llama-110m", 1, 128, 128, ("llama.cpp q8_0",), weights="int8"),
    *generate("llama-110m", 8, 128, 128, ("llama.cpp q8_0",), weights="int8"),
    *generate("opt-30m", 16, 64, 64),
    *generate("llama-110m", 1, 512, 2, ("transformers", "llama.cpp f32"), "prefill_tokens_per_s"),
    case("SFT step llama-110m 4x256", "transformers", TRAIN, "train", "llama-110m", "tokens_per_s", "--batch 4 --length 256"),
    case("SFT step opt-30m 16x128", "transformers", TRAIN, "train", "opt-30m", "tokens_per_s", "--batch 16 --length 128"),
    case("16 samples of a prompt, opt-30m 256+128", "16 prompts of their own", None, "generate", "opt-30m", "tokens_per_s",
         "--prompt 256 --new 128 --temperature 1", "--batch 16", "--batch 1 --samples 16"),
    case("64 prompts, answers of uneven lengths, opt-30m 64+256, 16 slots", "answers of one length", None, "generate",
         "opt-30m", "tokens_per_s", "--batch 64 --prompt 64 --slots 16", "--new 64", "--new 256 --lengths exponential"),
]


def run(command):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stderr[-1000:]}")
    return json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])


def sides(c, options):
    model, threads = options.models / c["model"], ["--threads", 2, "--repeats", options.repeats]
    bench = [options.binary, "bench", c["command"]]
    begin = [options.python, ROOT / "bench/peers" / c["script"]] if c["script"] else bench
    peer = [*begin, "--model", model, *c["options"], *c["peer_options"], *threads]
    ours = [*bench, "--model", model, *c["options"], *c["own_options"], *threads]
    return {"peer": peer, "dsengine": ours}


def same(c, peer, ours):
    """What shows that both did the same work."""
    if not c["script"]:
        return "the same program"
    if c["command"] == "train":
        if abs(peer["loss_first"] - ours["loss_first"]) > 1e-4:
            sys.exit(f"{c['what']}: losses {peer['loss_first']} and {ours['loss_first']}")
        return "loss of the first step"
    ids = ours["output_ids"]
    equal = next((i for i, (a, b) in enumerate(zip(peer["output_ids"], ids)) if a != b), len(ids))
    if c["peer"] == "transformers" and equal < len(ids):
        sys.exit(f"{c['what']}: greedy tokens differ from {equal} on")
    return f"the first {equal} of {len(ids)} greedy tokens"


def spread(values):
    return {"min": round(min(values), 3), "median": round(statistics.median(values), 3), "max": round(max(values), 3)}


def measure(c, options):
    commands, got, checked = sides(c, options), {"peer": [], "dsengine": []}, ""
    for round_ in range(options.rounds):
        lines = {}
        for side in ("peer", "dsengine") if round_ % 2 == 0 else ("dsengine", "peer"):
            lines[side] = run(commands[side])
        checked = checked or same(c, lines["peer"], lines["dsengine"])
        for side, line in lines.items():
            got[side].append(line)
    values = {side: [line[c["key"]] for line in lines] for side, lines in got.items()}
    memory = {side: statistics.median(line["peak_memory_mb"] for line in lines) for side, lines in got.items()}
    return {"what": c["what"], "peer": c["peer"], "unit": c["key"], "ratio": spread([b / a for a, b in zip(*values.values())]),
            "peer_value": spread(values["peer"]), "dsengine_value": spread(values["dsengine"]),
            "floor_share": spread([line["floor_share"] for line in got["dsengine"]])["median"],
            "memory_share": round(memory["dsengine"] / memory["peer"], 3), "same": checked}


def table(rows):
    lines = ["| what | beside | times as fast | tokens/s | share of the floor | peak memory |", "|---|---|---|---|---|---|"]
    for r in rows:
        ratio = r["ratio"]
        lines.append(f"| {r['what']} | {r['peer']} | {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}) | "
                     f"{r['dsengine_value']['median']:.0f} | {100 * r['floor_share']:.0f} % | {r['memory_share']:.2f} |")
    return "\n".join(lines) + "\n"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--models", type=Path, required=True)
    arguments.add_argument("--python", default=ROOT / ".deps/venv/bin/python")
    arguments.add_argument("--binary", type=Path, default=ROOT / "build/release/bin/dsengine")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--repeats", type=int, default=2)
    arguments.add_argument("--only", action="append", help="cases that have this in their name or peer")
    options = arguments.parse_args()
    subprocess.run([str(options.python), str(ROOT / "bench/peers/make_models.py"), str(options.models)], check=True)
    rows = []
    for c in CASES:
        if options.only and not any(part in c["what"] + " " + c["peer"] for part in options.only):
            continue
        rows.append(measure(c, options))
        print(json.dumps(rows[-1]), flush=True)
    flags = set(re.findall(r"\bavx2\b|\bavx512f\b|\bavx512_bf16\b", Path("/proc/cpuinfo").read_text()))
    machine = f"{len(os.sched_getaffinity(0))} cores, {' '.join(sorted(flags))}"
    head = f"# bench/compare.py --rounds {options.rounds} --repeats {options.repeats}; {machine}\n"
    RESULTS.write_text(head + "".join(json.dumps(row) + "\n" for row in rows))
    readme = ROOT / "bench/README.md"
    before, _, rest = readme.read_text().partition("<!-- peers -->\n")
    _, _, after = rest.partition("<!-- end -->\n")
    readme.write_text(before + "<!-- peers -->\n" + f"{machine}, two threads; float32 unless said.\n\n" + table(rows) + "<!-- end -->\n" + after)


main()
