"""Where the processors' time of a `dsengine bench` goes, by linux-perf: {what: share}.

  profile(["build/release/bin/dsengine", "bench", "generate", …], 3)    # {"products": 0.94, "attention": 0.02, …}

The first seconds, in which the program measures the machine and loads the model, are left out. All threads are counted,
so what waits shows as "waiting" where it turns, and not at all where it sleeps. Attention's larger blocks multiply by the
products' functions and count as them.
"""
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

GROUPS = (
    ("products", r"multiply_|lay_across|transpose|pack_panel|panels"),
    ("attention", r"attend|scores_of|add_values|merge_into"),
    ("head", r"sum_tile|merge_tiles|place_in_tile|cap_logits|Draw|LogProb|log_prob"),
    ("norms, activations", r"norm|activate|rotate|rope|Activation"),
    ("optimizer", r"AdamW|SumOfSquares|sum_of_squares"),
    ("waiting", r"ThreadTeam"),
    ("copies", r"memmove|memcpy|memset|copy|CacheWrite|Embedding|gather"),
)


def group(line):
    if "[k]" in line:
        return "kernel"
    return next((name for name, pattern in GROUPS if re.search(pattern, line)), "other")


def profile(command, seconds):
    if not shutil.which("perf"):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        recorded = subprocess.run(["perf", "record", "-q", "-D", str(1000 * seconds), "-o", str(data), *map(str, command)], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        if recorded.returncode != 0:
            return {}
        report = subprocess.run(["perf", "report", "-i", str(data), "--stdio", "-q", "--percent-limit", "0.02"],
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    shares = {}
    for line in report.splitlines():
        if percent := re.match(r"\s*([0-9.]+)%", line):
            shares[group(line)] = shares.get(group(line), 0) + float(percent[1]) / 100
    whole = sum(shares.values())
    return {name: round(share / whole, 3) for name, share in sorted(shares.items(), key=lambda one: -one[1])}
