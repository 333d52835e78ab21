#!/usr/bin/env python3
"""transformers' generate, greedy, exactly so many new tokens: the work of `dsengine bench generate`."""
import time

from inputs import emit, median, options, token_rows

o = options(__doc__, batch=1, prompt=128, new=128)
import torch
from transformers import AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList

torch.set_num_threads(o.threads)
model = AutoModelForCausalLM.from_pretrained(o.model, dtype=torch.float32).eval()
ids = torch.tensor(token_rows([o.prompt] * o.batch, model.config.vocab_size))


class FirstToken(LogitsProcessor):
    at = None

    def __call__(self, input_ids, scores):
        self.at = self.at or time.perf_counter()
        return scores


@torch.inference_mode()
def once():
    clock, start = FirstToken(), time.perf_counter()
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=o.new,
                         min_new_tokens=o.new, logits_processor=LogitsProcessorList([clock]))
    return clock.at - start, time.perf_counter() - clock.at, out[:, o.prompt:].tolist()


once()
runs = [once() for _ in range(o.repeats)]
prefill, decode = median([r[0] for r in runs]), median([r[1] for r in runs])
emit(peer="transformers", tokens_per_s=median([o.batch * o.new / (r[0] + r[1]) for r in runs]), prefill_s=prefill,
     decode_s=decode, decode_tokens_per_s=round(o.batch * (o.new - 1) / decode, 2),
     prefill_tokens_per_s=round(o.batch * o.prompt / prefill, 1), output_ids=runs[0][2][0])
