#!/usr/bin/env python3
"""dsengine beside what else does the same work on this machine, in turn: how many times as fast it is.

  bench/compare.py --models FOLDER [--peers FOLDER] [--rounds N] [--only TEXT]…
  # needs: cmake --build --preset release; linux-perf for the profiles. --peers: what bench/peers/setup has filled; without
  # it, transformers of .deps/venv alone. The models are made in FOLDER, which is kept.

Each round runs the peer's script of bench/peers and `dsengine bench`, the order alternating; of some rows both sides are
dsengine, at other work. A row counts only where both computed the same: greedy tokens, the first step's loss to 1e-4, or the
loss of the prompts to 1e-4. Results, a row as soon as it is measured, in place of an older one: bench/results/peers.jsonl
and the table of that name in bench/README.md.

Both sides are held to AVX2 by DSENGINE_INSTRUCTION_SET=avx2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2
ONEDNN_MAX_CPU_ISA=AVX2 in the environment, and llama.cpp where bench/peers/setup ran with the first of them.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

from hot_spots import profile

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results/peers.jsonl"
GENERATE, TRAIN = "transformers_generate.py", "transformers_train.py"
PACKAGES = {"trl_ppo.py": "trl-ppo", "deepspeed_ppo.py": "deepspeed"}  # folders beside the peers' environment


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


ROLLOUT = "--batch 16 --prompt 64 --new 64"
CASES = [
    *generate("llama-110m", 1, 128, 128, ("transformers", "llama.cpp f32")),
    *generate("opt-125m", 1, 128, 128),
    *generate("llama-110m", 8, 128, 128, ("transformers", "llama.cpp f32")),
    *generate("llama-110m", 1, 128, 128, ("llama.cpp f16",), weights="bf16"),
    *generate("llama-110m", 1, 128, 128, ("llama.cpp q8_0",), weights="int8"),
    *generate("llama-110m", 8, 128, 128, ("llama.cpp q8_0",), weights="int8"),
    *generate("opt-30m", 16, 64, 64),
    *generate("llama-110m", 1, 512, 2, ("transformers", "llama.cpp f32"), "prefill_tokens_per_s"),
    case("64 answers of uneven lengths, opt-30m 64+256, 16 slots", "padded waves", None, "generate", "opt-30m",
         "tokens_per_s", "--batch 64 --prompt 64 --new 256 --lengths exponential --slots 16", "--padded-waves"),
    case("64 answers of uneven lengths, opt-30m 64+256, 16 slots", "answers of one length", None, "generate", "opt-30m",
         "tokens_per_s", "--batch 64 --prompt 64 --slots 16", "--new 64", "--new 256 --lengths exponential"),
    *(case(f"16 samples of a prompt, {model} 256+128", "16 prompts of their own", None, "generate", model, "tokens_per_s",
           "--prompt 256 --new 128 --temperature 1", "--batch 16", "--batch 1 --samples 16")
      for model in ("opt-30m", "llama-110m")),
    *(case(f"SFT step {model} {lengths} {batch}x{length}", "transformers", TRAIN, "train", model, "tokens_per_s",
           f"--batch {batch} --length {length} --lengths {lengths}", own=f"--micro-batch {micro}")
      for model, batch, length, micro in (("llama-110m", 4, 256, 2), ("opt-30m", 16, 128, 8))
      for lengths in ("uniform", "ragged")),
    case("PPO step opt-30m B=16 64+64", "TRL", "trl_ppo.py", "ppo", "opt-30m", "samples_per_s", ROLLOUT,
         own="--temperature 0.7"),
    case("PPO step opt-30m B=16 64+64, micro-batches of 4", "TRL", "trl_ppo.py", "ppo", "opt-30m", "samples_per_s", ROLLOUT,
         own="--temperature 0.7 --micro-batch 4"),
    case("PPO step opt-30m B=16 64+64", "DeepSpeed ZeRO-2", "deepspeed_ppo.py", "ppo", "opt-30m", "samples_per_s", ROLLOUT,
         own="--temperature 0"),
    case("GRPO step opt-30m B=16 64+64 G=4", "TRL", "trl_grpo.py", "grpo", "opt-30m", "samples_per_s",
         ROLLOUT + " --group 4"),
]


def run(command, packages=None):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **({"PYTHONPATH": str(packages)} if packages else {})}
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=environment)
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stderr[-1000:]}")
    return json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])


def packages_of(c, options):
    return options.peers and PACKAGES.get(c["script"]) and options.peers / PACKAGES[c["script"]]


def python_of(options):
    return options.peers / "venv/bin/python" if options.peers else ROOT / ".deps/venv/bin/python"


def sides(c, options):
    model, threads = options.models / c["model"], ["--threads", 2, "--repeats", options.repeats]
    bench = [options.binary, "bench", c["command"]]
    begin = [python_of(options), ROOT / "bench/peers" / c["script"]] if c["script"] else bench
    peer = [*begin, "--model", model, *c["options"], *c["peer_options"], *threads]
    ours = [*bench, "--model", model, *c["options"], *c["own_options"], *threads]
    return {"peer": peer, "dsengine": ours}


def equal_tokens(c, peer, ours):
    if len(peer) != len(ours):
        sys.exit(f"{c['what']}: {len(peer)} and {len(ours)} tokens")
    equal = next((i for i, (a, b) in enumerate(zip(peer, ours)) if a != b), len(ours))
    if not c["peer"].startswith("llama.cpp") and equal < len(ours):
        sys.exit(f"{c['what']}: greedy tokens differ from {equal} on")
    return f"the first {equal} of {len(ours)} greedy tokens"


def same(c, peer, ours):
    """What shows that both did the same work."""
    if not c["script"]:
        return "the same program"
    shown = []
    for key, name in (("loss_first", "loss of the first step"), ("prompt_loss", "loss of the prompts")):
        if key in peer:
            if abs(peer[key] - ours[key]) > 1e-4:
                sys.exit(f"{c['what']}: {key} is {peer[key]} and {ours[key]}")
            shown.append(name)
    if "output_ids" in peer:
        shown.append(equal_tokens(c, peer["output_ids"], ours["output_ids"]))
    return ", ".join(shown)


def spread(values):
    return {"min": round(min(values), 3), "median": round(statistics.median(values), 3), "max": round(max(values), 3)}


def profile_of(command):
    return profile([*command[:-1], 4], 4)  # of more repeats


def measure(c, options):
    commands, got, checked = sides(c, options), {"peer": [], "dsengine": []}, ""
    for round_ in range(options.rounds):
        lines = {}
        for side in ("peer", "dsengine") if round_ % 2 == 0 else ("dsengine", "peer"):
            lines[side] = run(commands[side], packages_of(c, options) if side == "peer" else None)
        checked = checked or same(c, lines["peer"], lines["dsengine"])
        for side, line in lines.items():
            got[side].append(line)
    values = {side: [line[c["key"]] for line in lines] for side, lines in got.items()}
    memory = {side: statistics.median(line["peak_memory_mb"] for line in lines) for side, lines in got.items()}
    return {"what": c["what"], "peer": c["peer"], "unit": c["key"], "ratio": spread([b / a for a, b in zip(*values.values())]),
            "peer_value": spread(values["peer"]), "dsengine_value": spread(values["dsengine"]),
            "floor_share": spread([line["floor_share"] for line in got["dsengine"]])["median"],
            "memory_mb": round(memory["dsengine"]), "memory_share": round(memory["dsengine"] / memory["peer"], 3),
            "same": checked, "profile": profile_of(commands["dsengine"]), "machine": machine(), "rounds": options.rounds,
            "repeats": options.repeats,
            "command": " ".join(["dsengine", *(str(part) for part in commands["dsengine"][1:3]), c["model"],
                                 *(str(part) for part in commands["dsengine"][5:])])}


def table(rows):
    lines = ["| what | beside | times as fast | a second | share of the floor | profile | memory, MB | of the peer's |",
             "|---|---|---|---|---|---|---|---|"]
    for r in rows:
        ratio, value = r["ratio"], r["dsengine_value"]["median"]
        parts = ", ".join(f"{name} {100 * share:.0f}" for name, share in r["profile"].items() if share >= 0.02)
        rate = f"{value:.{0 if value >= 10 else 2}f} {'samples' if 'samples' in r['unit'] else 'tokens'}"
        lines.append(f"| {r['what']} | {r['peer']} | {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}) | {rate} | "
                     f"{100 * r['floor_share']:.0f} % | {parts} | {r['memory_mb']} | {r['memory_share']:.2f} |")
    return "\n".join(lines) + "\n"


def machine():
    flags = set(re.findall(r"\bavx2\b|\bavx512f\b|\bavx512_bf16\b", Path("/proc/cpuinfo").read_text()))
    limit = os.environ.get("DSENGINE_INSTRUCTION_SET")
    return f"{len(os.sched_getaffinity(0))} cores, {' '.join(sorted(flags))}" + (f", dsengine held to {limit}" if limit else "")


def write(measured, options):
    rows = [measured[key] for c in CASES if (key := (c["what"], c["peer"])) in measured]
    options.results.write_text("# bench/compare.py\n" + "".join(json.dumps(row) + "\n" for row in rows))
    begin, end = f"<!-- {options.results.stem} -->\n", f"<!-- end of {options.results.stem} -->\n"
    readme = ROOT / "bench/README.md"
    before, found, rest = readme.read_text().partition(begin)
    if not found:
        return
    _, _, after = rest.partition(end)
    machines = "; ".join(dict.fromkeys(row["machine"] for row in rows))
    readme.write_text(f"{before}{begin}{machines}; two threads, float32 unless said.\n\n{table(rows)}{end}{after}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--models", type=Path, required=True)
    arguments.add_argument("--peers", type=Path)
    arguments.add_argument("--binary", type=Path, default=ROOT / "build/release/bin/dsengine")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--repeats", type=int, default=2)
    arguments.add_argument("--profiles", action="store_true", help="the profiles of rows that are there, and nothing else")
    arguments.add_argument("--only", action="append", help="cases that have this in their name or peer")
    arguments.add_argument("--results", type=Path, default=RESULTS, help="elsewhere: of another machine; the table of that name")
    options = arguments.parse_args()
    subprocess.run([str(python_of(options)), str(ROOT / "bench/peers/make_models.py"), str(options.models)], check=True)
    old = [json.loads(line) for line in options.results.read_text().splitlines()[1:]] if options.results.exists() else []
    rows = {(row["what"], row["peer"]): row for row in old}
    for c in CASES:
        key = (c["what"], c["peer"])
        if options.only and not any(part in " beside ".join(key) for part in options.only):
            continue
        if not options.peers and c["script"] not in (None, GENERATE, TRAIN):
            print(f"{' beside '.join(key)}: left out, for there is no --peers", flush=True)
            continue
        if options.profiles:
            rows[key]["profile"] = profile_of(sides(c, options)["dsengine"])
        else:
            rows[key] = measure(c, options)
        print(json.dumps(rows[key]), flush=True)
        write(rows, options)
    write(rows, options)


main()
