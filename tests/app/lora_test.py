"""Adapters of one family, in and out: lora_test.py BINARY GOLDEN_DIRECTORY

The directory's model gets an adapter by training (SFT, then a reward model). PEFT, on the same base, must give the saved
adapter the numbers that `dsengine score` gives it (1e-4), and those are the merged directory's (1e-5). An adapter that
PEFT made and saved (ranks and alphas by patterns, a linear left out, a head of its own) scores as PEFT has it, trains on,
and is merged by `dsengine export`; so are its pissa and olora. Of the base no byte changes. Runs in the environment of scripts/setup.
"""
import pathlib
import sys
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

from scores import Program, expect_close, scores_of, write_data

BINARY, BASE = (str(pathlib.Path(a).resolve()) for a in sys.argv[1:])


def base_of(directory, kind):
    cls = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    more = {"num_labels": 1} if kind == "reward" else {}
    return cls.from_pretrained(directory, dtype=torch.float32, **more)


def configuration(folder, base, lora):
    stage = '[[stage]]\nname = "{0}"\nalgorithm = "{0}"\nmax_steps = 5\nmini_batch_size = 8\nlearning_rate = 1e-2\neval_rows = 4\n'
    data = folder.parent
    text = f'output_dir = "{folder}"\n[model]\nactor = "{base}"\ntokenizer = "{data}"\n[lora]\n{lora}\n'
    text += stage.format("sft") + f'data.sources = [{{ path = "{data}/sft.jsonl" }}]\n'
    text += stage.format("reward") + f'data.sources = [{{ path = "{data}/pairs.jsonl" }}]\n'
    config = folder.with_suffix(".toml")
    config.write_text(text)
    return config


def made_by_peft(init=True):
    """An adapter with random pairs: of layer 0's first linear with another rank, of the last ones with another alpha."""
    base = base_of(BASE, "language")
    linears = [n for n, m in base.named_modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and n != "lm_head"]
    heads = [] if base.config.tie_word_embeddings else ["lm_head"]
    linears.pop(1)
    model = get_peft_model(base, LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules=linears, modules_to_save=heads or None, init_lora_weights=init,
        rank_pattern={r"^.*\.0\..*" + linears[0].rsplit(".", 1)[1]: 7}, alpha_pattern={linears[-1].split(".", 1)[1]: 3.5}))
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name or (init is True and "lora_B" in name):
            torch.nn.init.normal_(parameter, std=0.1)
        elif "lora_" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def main():
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        program = Program(BINARY, scratch)
        score = program.score
        write_data(scratch)
        before, run = (pathlib.Path(BASE) / "model.safetensors").read_bytes(), scratch / "run"
        program.run("run", "--config", configuration(run, BASE, "rank = 4\nrslora = true"))
        for stage, kind in (("sft", "language"), ("reward", "reward")):
            beside, merged = score(run / stage / "adapter", kind), score(run / stage / "model", kind)
            expect_close(f"{kind}: beside, merged", beside, merged, 1e-5)
            of = BASE if kind == "language" else run / "sft/model"
            peft = PeftModel.from_pretrained(base_of(of, kind), run / stage / "adapter")
            expect_close(f"{kind}: dsengine, PEFT", beside, scores_of(peft, kind), 1e-4)
        assert (score(BASE) - score(run / "sft/adapter")).abs().max() > 1e-2

        made = made_by_peft()
        made.save_pretrained(scratch / "peft")
        by_peft = scores_of(made)
        expect_close("PEFT's own adapter", score(scratch / "peft"), by_peft, 1e-4)
        program.run("export", "--model", scratch / "peft", "--output", scratch / "merged")
        expect_close("exported", score(scratch / "merged"), by_peft, 1e-4)
        assert not (scratch / "merged/adapter_config.json").exists()
        # Pairs whose beginnings PEFT takes out of the base, each time it loads them. (Its olora cannot be made of Conv1D.)
        transposed = any(isinstance(m, Conv1D) for m in base_of(BASE, "language").modules())
        for init in ("pissa",) if transposed else ("pissa", "olora"):
            made_by_peft(init).save_pretrained(scratch / init)
            reloaded = PeftModel.from_pretrained(base_of(BASE, "language"), scratch / init)
            expect_close(f"PEFT's {init}", score(scratch / init), scores_of(reloaded), 1e-4)
            assert (score(scratch / init) - score(BASE)).abs().max() > 1e-2
            on = scratch / f"on_{init}"
            program.run("--plugin", "sft", "--config", configuration(on, scratch / init, "rank = 0"))
            trained = PeftModel.from_pretrained(base_of(BASE, "language"), on / "sft/adapter")
            expect_close(f"{init}, trained on", score(on / "sft/adapter"), scores_of(trained), 1e-4)
            expect_close(f"{init}, merged", score(on / "sft/model"), score(on / "sft/adapter"), 1e-4)

        on = scratch / "on"
        program.run("--plugin", "sft", "--config", configuration(on, scratch / "peft", "rank = 0"))
        trained = PeftModel.from_pretrained(base_of(BASE, "language"), on / "sft/adapter")
        expect_close("trained on", score(on / "sft/adapter"), scores_of(trained), 1e-4)
        assert (score(on / "sft/adapter") - by_peft).abs().max() > 1e-2
        assert (pathlib.Path(BASE) / "model.safetensors").read_bytes() == before


main()
