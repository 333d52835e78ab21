// A model's outputs at the tokens of answers, forward and backward: what every training step is made of.
//
//   const Selection s = select(experience, device);                    // where the answers stand in their batch
//   Outputs out = forward(model, s, 1.0, /*entropy=*/true, false);     // attached to their graph, under grad mode
//   to_column(out.logp, column);  …  backward(out, d_logp, d_entropy, {});
//
// Legend: T answer tokens of all rows.
#pragma once
#include <vector>

#include "model/model.h"
#include "rl/experience.h"

namespace dsengine {

struct Selection {
  Batch batch;
  at::Tensor before, at;  // [T]: the position that predicts a token; the token's own
  at::Tensor targets;     // [T]
};
// critic: of the rows as a critic with words of its own is asked.
Selection select(const Experience& experience, const Device& device, bool critic = false);

struct Outputs {
  at::Tensor logp, entropy, value;  // [T]; undefined where the model's kind has none or it was not asked for
};
// value_after: values at a token's own position (reward models), not before it (critics). adapted: with the adapter.
Outputs forward(const Model& model, const Selection& selection, double temperature, bool entropy, bool value_after,
                bool adapted = true);

// Adds to the parameters' gradients; an output without slopes, or that is of no trained model, is left out. Of no
// tokens the backward runs too: its sections are passed like any others.
void backward(const Outputs& outputs, const std::vector<float>& d_logp, const std::vector<float>& d_entropy,
              const std::vector<float>& d_value);

void to_column(const at::Tensor& from, std::vector<float>& to);

}  // namespace dsengine
