// AdamW (Loshchilov and Hutter 2019) over flat parameter units, with the clip of the global gradient norm
// folded in.
//
//   AdamW optimizer(kernels, units, {.beta1 = 0.9, .beta2 = 0.95});
//   double norm = optimizer.step(learning_rate, ranks); // reads and keeps unit.grad(); zero it afterwards
//
// Every rank has the gradients of all units, with the same bits, and makes the same update; or each has those of the
// parts that it owns, updates these, and gets the others' weights (shards.h). Moments (moments.h) are all in one
// buffer. Weights that are bfloat16 and have no float32 values beside are updated in float32 and rounded by counted
// draws (Gupta et al. 2015), for their 8 bits would swallow small updates.
#pragma once
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "memory/offload.h"
#include "ops/ops.h"
#include "param/moments.h"

namespace dsengine {

struct AdamWSettings {
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0, grad_clip = 1.0;
  MomentFormat moments = MomentFormat::fp32;
  uint64_t seed = 0;     // of the draws that moments and weights in bf16 are rounded by
  bool offload = false;  // moments lie beside the device's memory, and the update is made there
};

class AdamW {
 public:
  // rate_factors: of each unit's learning rate; empty: all 1.
  AdamW(const Kernels& kernels, std::vector<ParamStorage*> units, AdamWSettings settings,
        std::vector<double> rate_factors = {});
  AdamW(const AdamW&) = delete;  // its moments refer to its kernels
  AdamW& operator=(const AdamW&) = delete;

  // One update; returns the gradient norm before clipping, which the ranks agree on. Throws UserError where it is not
  // finite, on all of them, before anything is changed.
  double step(double learning_rate, Communicator& ranks);

  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }
  // Per unit, in the order given.
  const std::vector<Moments>& moments() const { return moments_; }
  std::vector<Moments>& moments() { return moments_; }
  const std::vector<ParamStorage*>& units() const { return units_; }
  // A unit's moments as Moments::read and write have them, whole. read: of several ranks that own parts a collective,
  // for a while with the memory of the whole, and f is called on all of them. shapes: the same without values.
  void read_moments(size_t unit, Communicator& ranks, const PlacedRows& f) const;
  void write_moments(size_t unit, const PlacedRows& f);
  void shapes_of_moments(size_t unit, const PlacedRows& f) const;
  // Whether ranks own parts, so that reading moments is a collective.
  bool cut() const;
  // Gradients and weights that were brought to where the moments are, and weights back, since the last call.
  Traffic take_traffic() { return std::exchange(traffic_, {}); }

 private:
  double grad_norm(Communicator& ranks) const;  // over all units, in float64
  const Device& moment_memory() const;
  Moments whole_moments(size_t unit, const Device& where) const;
  // Of elements [begin, begin + mean.numel()) of a unit's trained span. draws: of weights that are bfloat16.
  void update(const ParamStorage& unit, int64_t begin, const at::Tensor& mean, const at::Tensor& square,
              ops::AdamWNumbers numbers, const Philox& draws);

  const Device& device_;
  ops::SumOfSquares sum_of_squares_;  // where the gradients are
  ops::AdamWUpdate update_;           // where the moments are
  MomentKernels kernels_;             // there too
  std::vector<ParamStorage*> units_;
  AdamWSettings settings_;
  std::vector<double> rate_factors_;
  std::vector<Moments> moments_;
  // What is updated at a time, of what lies elsewhere than the moments, and of weights that are bfloat16.
  at::Tensor staged_gradient_, staged_weight_, staged_rounded_;
  int64_t steps_ = 0;
  Traffic traffic_;
};

}  // namespace dsengine
