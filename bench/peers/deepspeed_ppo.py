#!/usr/bin/env python3
"""DeepSpeed-Chat's step of PPO with DeepSpeed's engines, greedy as its OPT path is: the work of `dsengine bench ppo`.

Actor, critic, reference and reward model are an engine each (ZeRO 2 by default, gloo, one rank). A step generates with
transformers on the actor's module (DeepSpeed's hybrid engine has no kernels for a processor), computes the log-probabilities
of actor and reference, rewards, values and advantages, and updates actor and critic once.
"""
import os
import socket
import time

from inputs import emit, median, options, prompt_loss, token_rows

o = options(__doc__, batch=16, prompt=64, new=64, zero=2)
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
os.environ.update(DS_ACCELERATOR="cpu", RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
                  MASTER_PORT=str(port), DS_SKIP_CUDA_CHECK="1")
import deepspeed
import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModel, AutoModelForCausalLM

torch.set_num_threads(o.threads)
torch.manual_seed(7)
transformers.logging.set_verbosity_error()
deepspeed.init_distributed(dist_backend="gloo", verbose=False)


class Values(torch.nn.Module):
    """A model's layers and one output a token."""

    def __init__(self):
        super().__init__()
        self.layers = AutoModel.from_pretrained(o.model, dtype=torch.float32)
        self.head = torch.nn.Linear(self.layers.config.hidden_size, 1, bias=False)

    def forward(self, ids):
        return self.head(self.layers(input_ids=ids, use_cache=False)[0]).squeeze(-1)


def engine(model, learning_rate=None):
    zero = o.zero if learning_rate else 0
    settings = {"train_micro_batch_size_per_gpu": o.batch, "train_batch_size": o.batch, "gradient_accumulation_steps": 1,
                "gradient_clipping": 1.0, "steps_per_print": 10**9, "zero_optimization": {"stage": zero}}
    if learning_rate is None:
        return deepspeed.initialize(model=model.eval().requires_grad_(False), config=settings)[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), fused=True)
    return deepspeed.initialize(model=model, optimizer=optimizer, config=settings)[0]


def language_model():
    return AutoModelForCausalLM.from_pretrained(o.model, dtype=torch.float32)


actor, critic = engine(language_model(), 9.65e-6), engine(Values(), 5e-6)
reference, reward = engine(language_model()), engine(Values())
prompts = token_rows([o.prompt] * o.batch, actor.module.config.vocab_size)
loss, ids = prompt_loss(actor.module, prompts), torch.tensor(prompts)


def log_probs(model, tokens):
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    return F.log_softmax(logits, dim=-1).gather(-1, tokens[:, 1:].unsqueeze(-1)).squeeze(-1)[:, o.prompt - 1:]


def experience():
    actor.eval(), critic.eval()
    with torch.no_grad():
        tokens = actor.module.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=o.new,
                                       min_new_tokens=o.new)
        old, base = log_probs(actor, tokens), log_probs(reference, tokens)
        values = critic(tokens)[:, o.prompt - 1:-1]
        rewards = -0.1 * (old - base)
        rewards[:, -1] += reward(tokens)[:, -1].clamp(-5, 5)
        advantage, advantages = 0, []
        for t in reversed(range(o.new)):
            after = values[:, t + 1] if t + 1 < o.new else 0
            advantage = rewards[:, t] + after - values[:, t] + 0.95 * advantage
            advantages.insert(0, advantage)
        return tokens, old, values, torch.stack(advantages, 1)


def step():
    start = time.perf_counter()
    tokens, old, values, advantages = experience()
    actor.train(), critic.train()
    ratio = (log_probs(actor, tokens) - old).exp()
    actor.backward(torch.max(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.2)).mean())
    actor.step()
    new, returns = critic(tokens)[:, o.prompt - 1:-1], advantages + values
    clipped = torch.clamp(new, values - 0.2, values + 0.2)
    critic.backward(0.5 * torch.max((new - returns) ** 2, (clipped - returns) ** 2).mean())
    critic.step()
    assert tokens.shape[1] == o.prompt + o.new, tokens.shape
    return time.perf_counter() - start, tokens[0, o.prompt:].tolist()


first = step()[1]
seconds = [step()[0] for _ in range(o.repeats)]
emit(peer=f"DeepSpeed ZeRO-{o.zero}", step_s=median(seconds), samples_per_s=round(o.batch / median(seconds), 4),
     prompt_loss=loss, output_ids=first)
