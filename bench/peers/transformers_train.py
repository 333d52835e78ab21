#!/usr/bin/env python3
"""A step of supervised fine-tuning with transformers and torch's fused AdamW: the work of `dsengine bench train`."""
import time

from inputs import emit, median, options, token_rows

o = options(__doc__, batch=4, length=256)
import torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(o.threads)
model = AutoModelForCausalLM.from_pretrained(o.model, dtype=torch.float32).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), fused=True)
ids = torch.tensor(token_rows(o.batch, o.length, model.config.vocab_size))


def once():
    start = time.perf_counter()
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    value = loss.item()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - start, value


first = once()[1]
seconds = [once()[0] for _ in range(o.repeats)]
emit(peer="transformers", step_s=median(seconds), tokens_per_s=round(o.batch * o.length / median(seconds), 1),
     loss_first=round(first, 5))
