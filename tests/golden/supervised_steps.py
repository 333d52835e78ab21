#!/usr/bin/env python3
"""One step of supervised fine-tuning and one of reward-model training: sft_step/, reward_step/.

    python3 supervised_steps.py        # files: see training_step.py

SFT: mean over the completion tokens of all rows of -log p. Reward: mean over the pairs of
-log sigmoid(chosen - rejected), each the scalar head at the answer's last token.
"""
import torch

from llama_reference import Llama, token_logprobs
from training_step import HERE, OPTIMIZER, Trainer, random_ids, write

EOS = 2


def sft_input():
    generator, vocabulary = torch.Generator().manual_seed(21), 97
    rows = [{"prompt_ids": random_ids(generator, vocabulary, p),
             "completion_ids": random_ids(generator, vocabulary, c - 1) + [EOS]}
            for p, c in [(3, 7), (11, 1), (1, 14), (6, 4)]]
    return {"model": "../llama_gqa", "settings": OPTIMIZER, "rows": rows}


def sft_loss(model, given):
    logprobs = [token_logprobs(model, r["prompt_ids"] + r["completion_ids"], first=len(r["prompt_ids"]))
                for r in given["rows"]]
    return -torch.cat(logprobs).mean(), {"logp": [x.tolist() for x in logprobs]}


def reward_input():
    generator, vocabulary = torch.Generator().manual_seed(22), 97
    pairs = []
    for shared, chosen, rejected in [(4, 5, 8), (9, 3, 1), (1, 12, 12), (6, 2, 7)]:
        prompt = random_ids(generator, vocabulary, shared)
        pairs.append({"chosen_ids": prompt + random_ids(generator, vocabulary, chosen - 1) + [EOS],
                      "rejected_ids": prompt + random_ids(generator, vocabulary, rejected - 1) + [EOS]})
    return {"model": "../llama_reward", "settings": OPTIMIZER, "pairs": pairs}


def reward_loss(model, given):
    def scores(side):
        return torch.stack([model.values(model.hidden(pair[side]))[-1] for pair in given["pairs"]])
    chosen, rejected = scores("chosen_ids"), scores("rejected_ids")
    loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
    return loss, {"chosen": chosen.tolist(), "rejected": rejected.tolist(),
                  "accuracy": (chosen > rejected).double().mean().item(), "margin": (chosen - rejected).mean().item()}


def one_step(folder, loss_of):
    def compute(given, dtype):
        trainer = Trainer(Llama.load(folder / given["model"], dtype))
        before = trainer.after()
        loss, columns = loss_of(trainer.model, given)
        loss.backward()
        return {"loss": loss.item(), "grad_norm": trainer.update(), **columns}, \
               {"model": (trainer.grads, before, trainer.after())}
    return compute


def main():
    for name, given, loss_of in [("sft_step", sft_input(), sft_loss), ("reward_step", reward_input(), reward_loss)]:
        (HERE / name).mkdir(exist_ok=True)
        write(HERE / name, given, one_step(HERE / name, loss_of))


if __name__ == "__main__":
    main()
