#!/usr/bin/env python3
"""A step of TRL's GRPO trainer with a reward that asks no model: the work of `dsengine bench grpo`.

bfloat16 and gradient checkpointing, which TRL sets by default, are off: both make a step on a processor slower.
"""
import tempfile

from inputs import emit, options, prompt_loss, step_seconds, token_rows, word_tokenizer

o = options(__doc__, batch=16, group=4, prompt=64, new=64)
import datasets
import torch
import transformers
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

torch.set_num_threads(o.threads)
transformers.logging.set_verbosity_error()
actor = AutoModelForCausalLM.from_pretrained(o.model, dtype=torch.float32)
prompts = token_rows([o.prompt] * (o.batch // o.group), actor.config.vocab_size)
texts = [" ".join(f"t{token}" for token in row) for row in prompts]
loss = prompt_loss(actor, prompts)


def variety(completion_ids, **_):
    assert all(len(ids) == o.new for ids in completion_ids)
    return [len(set(ids)) / 100 for ids in completion_ids]


with tempfile.TemporaryDirectory() as folder:
    settings = GRPOConfig(
        output_dir=folder, per_device_train_batch_size=o.batch, gradient_accumulation_steps=1, num_generations=o.group,
        max_completion_length=o.new, max_steps=o.repeats + 2, steps_per_generation=1, num_iterations=1, beta=0.0,
        bf16=False, gradient_checkpointing=False, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
        logging_steps=1000, generation_kwargs={"min_new_tokens": o.new})
    trainer = GRPOTrainer(model=actor, reward_funcs=variety, args=settings,
                          train_dataset=datasets.Dataset.from_dict({"prompt": texts * (o.repeats + 2)}),
                          processing_class=word_tokenizer(actor.config.vocab_size))
    step = step_seconds(trainer, o.repeats)
emit(peer="TRL", step_s=step, samples_per_s=round(o.batch / step, 4), prompt_loss=loss)
