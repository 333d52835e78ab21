// A model's gradients against central differences.
//
//   for (const auto& g : compare_gradients(model)) worst = std::max(worst, g.deviation());    // float64
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "model/model.h"

namespace dsengine {

// Sequences of these lengths, the same each time.
std::vector<std::vector<int32_t>> made_up_sequences(const std::vector<int64_t>& lengths, int64_t vocabulary);

// A tensor's gradient and what central differences say of it, both along one random direction.
struct GradientComparison {
  std::string tensor;
  double exact, numeric;
  double largest;  // of the gradient's elements, by size
  // Relative to the larger of 1 and the number: the objective is of order 1.
  double deviation() const { return std::abs(exact - numeric) / std::max(1.0, std::abs(numeric)); }
};
// For a float64 model: log-probs and entropies (or values) of ragged sequences, weighted and summed, by each tensor.
std::vector<GradientComparison> compare_gradients(Model& model);

}  // namespace dsengine
