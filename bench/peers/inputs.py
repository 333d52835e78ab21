"""What a peer's script shares with `dsengine bench`: its token ids, its options, its one line of JSON."""
import argparse
import json
import os
import resource
import statistics


def token_rows(count, length, vocabulary):
    """Those of core/app/bench_inputs.h: s = 6364136223846793005 s + 1442695040888963407 mod 2^64, (s >> 33) % n."""
    low, high, state = (1000 if vocabulary > 1000 else 0), min(30000, vocabulary), 1234
    rows = []
    for _ in range(count):
        rows.append([])
        for _ in range(length):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            rows[-1].append(low + (state >> 33) % (high - low))
    return rows


def options(description, **numbers):
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--model", required=True)
    for name, default in {**numbers, "threads": 2, "repeats": 3}.items():
        arguments.add_argument("--" + name, type=type(default), default=default)
    parsed = arguments.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before anything reads them
        os.environ[name] = str(parsed.threads)
    return parsed


def emit(**fields):
    fields["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    print(json.dumps(fields), flush=True)


def median(values):
    return round(statistics.median(values), 5)
