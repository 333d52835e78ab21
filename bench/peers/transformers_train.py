#!/usr/bin/env python3
"""A step of supervised fine-tuning with transformers and torch's fused AdamW: the work of `dsengine bench train`.

Sequences of different lengths are padded to the longest, which is how a batch is given to transformers.
"""
import time

from inputs import emit, median, options, ragged_lengths, token_rows

o = options(__doc__, batch=4, length=256, lengths="uniform")
import torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(o.threads)
model = AutoModelForCausalLM.from_pretrained(o.model, dtype=torch.float32).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), fused=True)
lengths = [o.length] * o.batch if o.lengths == "uniform" else ragged_lengths(o.batch, o.length)
rows = token_rows(lengths, model.config.vocab_size)


def padded(row, filler):
    return row + [filler] * (max(lengths) - len(row))


ids = torch.tensor([padded(row, 0) for row in rows])
labels = torch.tensor([padded(row, -100) for row in rows])
mask = torch.tensor([padded([1] * len(row), 0) for row in rows])


def once():
    start = time.perf_counter()
    loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
    value = loss.item()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - start, value


first = once()[1]
seconds = [once()[0] for _ in range(o.repeats)]
emit(peer="transformers", step_s=median(seconds), tokens_per_s=round(sum(lengths) / median(seconds), 1),
     loss_first=round(first, 5))
