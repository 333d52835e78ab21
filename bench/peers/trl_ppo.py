#!/usr/bin/env python3
"""A step of TRL's PPO trainer, policy, reference, reward and value model of one shape: the work of `dsengine bench ppo`.

Needs TRL 1.12, the last with a PPO trainer. bfloat16 and gradient checkpointing, which TRL sets by default, are off: both
make a step on a processor slower. Sampling is at temperature 0.7, as TRL does it.
"""
import tempfile

from inputs import emit, options, prompt_loss, step_seconds, token_rows, word_tokenizer

o = options(__doc__, batch=16, prompt=64, new=64, epochs=1)
import datasets
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

torch.set_num_threads(o.threads)
transformers.logging.set_verbosity_error()
actor, reference = (AutoModelForCausalLM.from_pretrained(o.model, dtype=torch.float32) for _ in range(2))
reward, value = (AutoModelForSequenceClassification.from_pretrained(o.model, num_labels=1, dtype=torch.float32)
                 for _ in range(2))
prompts = token_rows([o.prompt] * o.batch, actor.config.vocab_size)
data = datasets.Dataset.from_dict({"input_ids": prompts})
loss, generate = prompt_loss(actor, prompts), ppo_trainer.batch_generation


def whole_answers(*arguments, **named):
    answers = generate(*arguments, **named)
    assert answers[0].shape[1] == o.prompt + o.new, answers[0].shape
    return answers


ppo_trainer.batch_generation = whole_answers
with tempfile.TemporaryDirectory() as folder:
    settings = PPOConfig(
        output_dir=folder, per_device_train_batch_size=o.batch, gradient_accumulation_steps=1, num_mini_batches=1,
        num_ppo_epochs=o.epochs, total_episodes=o.batch * (o.repeats + 2), response_length=o.new,
        local_rollout_forward_batch_size=o.batch, num_sample_generations=0, bf16=False, gradient_checkpointing=False,
        use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=1000)
    trainer = PPOTrainer(args=settings, processing_class=word_tokenizer(actor.config.vocab_size), model=actor,
                         ref_model=reference, reward_model=reward, value_model=value, train_dataset=data,
                         eval_dataset=data)
    step = step_seconds(trainer, o.repeats)
emit(peer="TRL", step_s=step, samples_per_s=round(o.batch / step, 4), prompt_loss=loss)
