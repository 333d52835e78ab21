"""What a run holds is in its metrics, and memory that runs out ends it with one line that says what held it: memory_test.py BINARY

A run in small micro-batches says how much address space it needs, one in large micro-batches how much more its
activations take: with a limit between the two it must fail in the middle of its step.
"""
import json
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time

BINARY = str(pathlib.Path(sys.argv[1]).resolve())
TINY = pathlib.Path(__file__).resolve().parent.parent.parent / "examples/tiny"
ROWS = 64


def configuration(folder):
    model = folder / "model"
    model.mkdir()
    for file in (TINY / "model").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    config = json.loads((model / "config.json").read_text())
    config.update(hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4, head_dim=64, max_position_embeddings=512)
    (model / "config.json").write_text(json.dumps(config))
    text = "Which of the words are these, and which are those? " * 5
    (folder / "sft.jsonl").write_text("".join(json.dumps({"prompt": f"{i} {text}", "completion": text}) + "\n" for i in range(ROWS)))
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"{i} {text}"}) + "\n" for i in range(32)))
    (folder / "run.toml").write_text(f"""
threads = 1
[model]
actor = "{model}"
init = "random"
[[stage]]
name = "sft"
algorithm = "sft"
max_steps = 1
ema_decay = 0.9
mini_batch_size = {ROWS}
data.sources = [{{ path = "{folder}/sft.jsonl" }}]
[[stage]]
name = "grpo"
algorithm = "grpo"
max_steps = 2
mini_batch_size = 64
micro_batch_size = 1
recompute = true
rewards = [{{ plugin = "overlong", max_length = 4 }}]
rollout = {{ batch_size = 32, samples_per_prompt = 2, max_response_length = 8 }}
data.sources = [{{ path = "{folder}/prompts.jsonl" }}]
""")


def start(folder, name, *sets, limit=None):
    def before():
        if limit:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    command = [BINARY, "run", "--config", folder / "run.toml", "--set", f"output_dir={folder / name}"]
    return subprocess.Popen(command + [a for s in sets for a in ("--set", s)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            text=True, preexec_fn=before)


def address_space(process):
    """Bytes that it had at most, watched until it ends."""
    most = 0
    while process.poll() is None:
        found = re.search(r"VmPeak:\s+(\d+) kB", pathlib.Path(f"/proc/{process.pid}/status").read_text())
        most = max(most, int(found[1]) * 1024 if found else 0)
        time.sleep(0.002)
    return most


def lines(folder, stage):
    return [json.loads(line) for line in (folder / stage / "metrics.jsonl").read_text().splitlines()]


def expect_accounts(folder):
    (sft,) = lines(folder, "sft")
    weights = sft["memory_weights_mb"]
    assert 4 * 4 * (256 * 256 * 4 + 256 * 1024 * 3) / 2**20 < weights < 30, weights
    for tag, times in (("gradients", 1), ("moments", 2), ("average", 1)):  # float32 like the weights; buffers begin apart
        assert abs(sft[f"memory_{tag}_mb"] / weights - times) < 1e-3, (tag, sft)
    assert sft["memory_kv_cache_mb"] == sft["memory_peak_generate_mb"] == 0 and sft["memory_columns_mb"] > 0
    assert sft["memory_peak_mb"] == sft["memory_peak_train_mb"] > 5 * weights
    for line in lines(folder, "grpo"):
        # 4 layers of keys and values for 32 prompts: more than what training one row takes, and handed back before it.
        assert line["memory_kv_cache_mb"] > 20 and line["memory_average_mb"] == 0, line
        held = sum(line[f"memory_{tag}_mb"] for tag in ("weights", "gradients", "moments", "kv_cache"))
        assert line["memory_peak_generate_mb"] >= held > line["memory_peak_train_mb"], line
    return sft


def main():
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        configuration(folder)
        small = start(folder, "small", "stage.sft.micro_batch_size=1")
        space = address_space(small)
        assert small.wait() == 0, small.stderr.read()[-2000:]
        least = expect_accounts(folder / "small")
        large = start(folder, "large")
        assert large.wait() == 0, large.stderr.read()[-2000:]
        most = expect_accounts(folder / "large")
        more = (most["memory_peak_mb"] - least["memory_peak_mb"]) * 2**20
        print(f"{space / 2**20:.0f} MiB of addresses in small micro-batches, activations of {more / 2**20:.0f} MiB more in large ones")
        assert more > 400 * 2**20, more

        limited = start(folder, "limited", limit=int(space + more / 2))
        error = limited.communicate()[1]
        last = error.splitlines()[-1]
        assert limited.returncode == 1 and error.count("dsengine: ") == 1, error[-2000:]
        assert re.match(r"dsengine: error: not enough memory: [\d.]+ [KMG]iB asked for \(activations in phase actor\), where "
                        r"[\d.]+ [MG]iB are held: weights [\d.]+ MiB, gradients .*moments .*average .*activations .*"
                        r"micro_batch_size", last), last
        left = list((folder / "limited").glob("*/model")) + list((folder / "limited").glob("**/.*"))
        assert not left and (folder / "limited/sft/metrics.jsonl").read_text() == "", left
        print(last)


main()
