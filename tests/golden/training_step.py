"""What the three references of a training step share: clip, AdamW, and the files they leave.

A reference writes into its folder, from one float64 computation:
  input.json                what goes in: model directories (relative), settings, token ids
  expected.json             losses, norms and columns, in full precision
  <role>_grads.safetensors  d loss / d weight before clipping, by Hugging Face name, rounded to float32
  <role>_after.safetensors  the weights after one update, rounded to float32
"""
import json
import pathlib

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
OPTIMIZER = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.0,
             "max_grad_norm": 1.0}


class Trainer:
    """One model and its AdamW; update() leaves the gradients as they were before clipping in `grads`."""

    def __init__(self, model):
        self.model, self.grads = model, {}
        o = OPTIMIZER
        self.adam = torch.optim.AdamW(model.weights.values(), lr=o["learning_rate"], betas=(o["beta1"], o["beta2"]),
                                      eps=o["epsilon"], weight_decay=o["weight_decay"])

    def update(self):
        """The gradient's norm over the whole model, before it is clipped to max_grad_norm."""
        weights = self.model.weights
        self.grads = {name: w.grad.clone() for name, w in weights.items()}
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), OPTIMIZER["max_grad_norm"])
        self.adam.step()
        self.adam.zero_grad()
        return norm.item()

    def after(self):
        return {name: w.detach().clone() for name, w in self.model.weights.items()}


def relative_difference(a, b):
    """|a - b| / |b| over all tensors together."""
    apart = sum(((a[n].double() - b[n].double()) ** 2).sum() for n in b)
    return (apart / sum((b[n].double() ** 2).sum() for n in b)).sqrt().item()


def write(folder, given, compute):
    """Computes in float64 and writes it all; `float32_deviation` in expected.json says what float32 would lose."""
    exact, exact_tensors = compute(given, torch.float64)
    rounded, rounded_tensors = compute(given, torch.float32)
    exact["float32_deviation"] = {"loss": abs(rounded["loss"] / exact["loss"] - 1)}
    for role, (grads, before, after) in exact_tensors.items():
        changes = [{n: a[n].double() - b[n].double() for n in b}
                   for _, b, a in (rounded_tensors[role], exact_tensors[role])]
        exact["float32_deviation"][role] = {"grads": relative_difference(rounded_tensors[role][0], grads),
                                            "weight_change": relative_difference(*changes)}
        for kind, tensors in (("grads", grads), ("after", after)):
            path = folder / f"{role}_{kind}.safetensors"
            save_file({n: t.float().contiguous() for n, t in tensors.items()}, path, metadata={"format": "pt"})
            path.chmod(0o644)
    (folder / "input.json").write_text(json.dumps(given, indent=1) + "\n")
    (folder / "expected.json").write_text(json.dumps(exact, indent=1) + "\n")
    print(f"{folder.name}: loss {exact['loss']:.6f}, float32 deviation {exact['float32_deviation']}")


def random_ids(generator, vocabulary, n):
    """Ordinary tokens: the first three ids are special."""
    return torch.randint(3, vocabulary, (n,), generator=generator).tolist()
