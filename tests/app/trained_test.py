"""What a run saves is what transformers computes with: trained_test.py BINARY

A LLaMA- and an OPT-shaped model are trained for a few steps (SFT, then a reward model); transformers must give the
saved directories the log-probs and rewards that `dsengine score` gives (1e-4). A rollout that is recorded and replayed
trains to the same bits, and a stage that is done is reused. Runs in the environment of scripts/setup.
"""
import json
import pathlib
import random
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BINARY, TINY = str(pathlib.Path(sys.argv[1]).resolve()), HERE.parent.parent / "examples/tiny"
sys.path.insert(0, str(HERE.parent / "golden"))
import check_saved  # noqa: E402  (transformers is imported there)

OPT = {"architectures": ["OPTForCausalLM"], "model_type": "opt", "vocab_size": 768, "hidden_size": 32, "word_embed_proj_dim": 32,
       "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128, "init_std": 0.1,
       "activation_function": "relu", "do_layer_norm_before": True, "tie_word_embeddings": True, "bos_token_id": 0,
       "eos_token_id": 1, "pad_token_id": None}


def run(folder, stages, *sets):
    config = folder / "run.toml"
    config.write_text((TINY.parent / "rlhf_tiny.toml").read_text().replace('"tiny/', f'"{TINY}/'))
    command = [BINARY, "--plugin", stages, "--config", config, "--set", f"output_dir={folder}/out", "--set", "eval_rows=8",
               "--set", "mini_batch_size=16", "--set", "stage.sft.max_steps=6", "--set", "stage.reward.max_steps=4",
               "--set", "stage.ppo.max_steps=3", "--set", "stage.ppo.rollout.batch_size=16"]
    for s in sets:
        command += ["--set", s]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def compare(directory, kind, scratch):
    draws = random.Random(4)
    ids = [[draws.randrange(2, 768) for _ in range(n)] for n in (1, 2, 7, 30, 64)]
    given, out = scratch / "ids.jsonl", scratch / "scored.jsonl"
    given.write_text("".join(json.dumps({"input_ids": i}) + "\n" for i in ids))
    subprocess.run([BINARY, "score", "--reward" if kind == "reward" else "--model", directory, "--input", given, "--output", out],
                   check=True)
    cases = [json.loads(line) for line in out.read_text().splitlines()]
    assert any(abs(c["reward"]) > 1e-3 for c in cases) if kind == "reward" else cases[-1]["logprobs"][0] < -1
    golden = scratch / "golden.json"
    golden.write_text(json.dumps({"kind": kind, "cases": cases}))
    line, code = check_saved.main(directory, golden)
    print(line)
    assert code == 0


with tempfile.TemporaryDirectory() as scratch:
    scratch = pathlib.Path(scratch)
    for name in ("llama", "opt"):
        folder = scratch / name
        folder.mkdir()
        sets = []
        if name == "opt":
            (folder / "model").mkdir()
            (folder / "model/config.json").write_text(json.dumps(OPT))
            sets = [f"model.actor={folder}/model", f"model.tokenizer={TINY}/model"]
        run(folder, "reward", *sets)
        compare(folder / "out/sft/model", "causal_lm", scratch)
        compare(folder / "out/reward/model", "reward", scratch)

    folder = scratch / "llama"
    log = run(folder, "ppo", f"stage.ppo.rollout.record={folder}/rollouts")
    assert log.count("already done") == 2, log
    weights = (folder / "out/ppo/model/model.safetensors").read_bytes()
    recorded = sorted(p.name for p in (folder / "rollouts").iterdir())
    assert recorded == ["step-00000000.json", "step-00000001.json", "step-00000002.json"], recorded
    (folder / "out/ppo").rename(folder / "first")
    run(folder, "ppo", f"stage.ppo.rollout.replay={folder}/rollouts")
    assert (folder / "out/ppo/model/model.safetensors").read_bytes() == weights, "a replayed rollout trains otherwise"
    print("recorded and replayed rollouts train to the same bits")
