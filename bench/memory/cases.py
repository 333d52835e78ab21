"""Benchmarks that go through named cases: their options, and where results go.

  options = options_of(__doc__)
  results = [measure(options.binary, name) for name in wanted(NAMES, options)]
  write(results, "memory_plan", "bench/memory/plan.py", options)
"""
import argparse
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def options_of(description):
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", type=Path, default=ROOT / "build/release/bin/dsengine")
    arguments.add_argument("--only", action="append", help="those that have this in their name; nothing is written")
    return arguments.parse_args()


def wanted(names, options):
    return [name for name in names if not options.only or any(part in name for part in options.only)]


def write(results, name, command, options):
    """Lines of JSON, under the command that made them."""
    if not options.only:
        (ROOT / f"bench/results/{name}.jsonl").write_text(f"# {command}\n" + "".join(json.dumps(r) + "\n" for r in results))
