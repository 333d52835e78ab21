// Low-rank adapters (LoRA; Hu et al. 2021): beside a linear weight W [out, in] a pair A [r, in], B [out, r], so that
// y = x Wᵀ + scale (x Aᵀ) Bᵀ. W itself is never changed.
//
//   Adapter adapter(graph, {.rank = 8, .alpha = 16, .targets = {"q", "v"}}, at::kFloat);
//   adapter.initialize(seed);                                  // A as PEFT draws it, B zero: y is the base's y
//   at::Tensor y = adapter.add(ops, section, block, x, base_y);
//
// Targets are the roles that a model's declaration gives its linears: q, k, v, o, gate, up, down, linear. Each
// section's pairs lie in a ParamUnit of their own, "adapter.layers.0". Where one operator reads q|k|v fused, the A of
// its targets are one block too. scale is alpha / rank, or alpha / sqrt(rank) (rsLoRA; Kalajdzievski 2023).
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/graph.h"
#include "model/operations.h"
#include "param/param_unit.h"

namespace dsengine {

constexpr int64_t kLargestRank = 1 << 14;

struct AdapterSettings {
  int64_t rank = 8;
  double alpha = 16;
  bool rslora = false;
  std::vector<std::string> targets{};  // roles
};

class Adapter {
 public:
  // Whether a linear gets a pair, by its role ("q") and its weight's name in the checkpoint.
  using Choice = std::function<bool(const std::string& role, const ParamSpec& weight)>;

  // UserError where a target is not known or nothing is chosen.
  Adapter(const ModelGraph& graph, const AdapterSettings& settings, at::ScalarType dtype);
  Adapter(const ModelGraph& graph, const AdapterSettings& settings, at::ScalarType dtype, const Choice& choice);

  // A copy with tensors of its own.
  Adapter(const Adapter& other);

  const AdapterSettings& settings() const { return settings_; }
  double scale() const;
  void initialize(uint64_t seed);

  // y [N, out] of block `block` of section `section` on x [N, in], with the pairs' share added; y where it has none.
  at::Tensor add(const Operations& ops, size_t section, int block, const at::Tensor& x, const at::Tensor& y) const;
  // What the pair adds to one part's weight, [out, in]; undefined where it has none.
  at::Tensor delta(size_t section, size_t block, size_t part) const;

  std::vector<ParamUnit*> units();
  std::vector<const ParamUnit*> units() const;

 private:
  struct Pair {
    size_t part;       // of the weight's block
    size_t first_row;  // of its share of the A block
    size_t b_block;    // in the adapter's unit
  };
  struct Target {
    size_t a_block;
    std::vector<Pair> pairs;
    size_t parts;                 // of the weight's block
    std::vector<int64_t> widths;  // of the parts
  };
  struct SectionPairs {
    std::map<int, Target> targets;  // by block
    std::unique_ptr<ParamUnit> unit;
  };

  AdapterSettings settings_;
  std::vector<SectionPairs> sections_;
};

// The adapted module of a weight: "model.layers.0.self_attn.q_proj" of "model.layers.0.self_attn.q_proj.weight".
std::string module_of(const ParamSpec& weight);

// Which blocks of a section are of a kind that may be trained beside an adapter: "norms", "biases", "embeddings".
std::vector<bool> blocks_of_kinds(const Section& section, const std::vector<std::string>& kinds);

}  // namespace dsengine
