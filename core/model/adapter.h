// Low-rank adapters (LoRA; Hu et al. 2021): beside a linear weight W [out, in] a pair A [r, in], B [out, r], so that
// y = x Wᵀ + scale (x Aᵀ) Bᵀ. W itself is never changed. A pair belongs to a module of the checkpoint, as PEFT has it:
// where q, k and v are one tensor there, they have one pair.
//
//   Adapter adapter(graph, {.rank = 8, .alpha = 16, .targets = {"q", "v"}}, kernels, at::kFloat);
//   adapter.initialize(seed);                                  // A as PEFT draws it, B zero: y is the base's y
//   at::Tensor y = adapter.add(section, block, x, base_y);
//
// Targets are the roles that a model's declaration gives its linears: q, k, v, o, gate, up, down, linear. Each
// section's pairs lie in a ParamStorage of their own, "adapter.layers.0". Where one operator reads q|k|v at once, the A
// of its pairs are one block too. scale is alpha / rank, or alpha / sqrt(rank) (rsLoRA; Kalajdzievski 2023).
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/graph.h"
#include "ops/ops.h"
#include "param/storage.h"

namespace dsengine {

constexpr int64_t kLargestRank = 1 << 14;

struct AdapterSettings {
  int64_t rank = 8;
  double alpha = 16;
  bool rslora = false;
  std::vector<std::string> targets{};  // roles
  // PEFT's init_lora_weights where the pair that it begins with is taken out of the base when the adapter is loaded:
  // "pissa" or "olora". The base of such a model is no model by itself.
  std::string init{};
};

// Of one pair.
struct LowRank {
  int64_t rank;
  double alpha;
  bool operator==(const LowRank&) const = default;
};

class Adapter {
 public:
  // What pair a linear gets.
  using Choice = std::function<std::optional<LowRank>(const ParamSpec& weight)>;

  // UserError where a target is not known, nothing is chosen, or of a module's linears only some are.
  Adapter(const ModelGraph& graph, const AdapterSettings& settings, const Kernels& kernels, at::ScalarType dtype);
  Adapter(const ModelGraph& graph, const AdapterSettings& settings, const Kernels& kernels, at::ScalarType dtype,
          const Choice& choice);

  // A copy with tensors of its own.
  Adapter(const Adapter& other);

  const AdapterSettings& settings() const { return settings_; }
  double scale(const LowRank& pair) const;
  void initialize(uint64_t seed);

  // A row of what add computes has the same bits in any batch (ops.h).
  bool row_invariant() const;
  // y [N, out] of block `block` of section `section` on x [N, in], with the pairs' share added; y where it has none.
  at::Tensor add(size_t section, int block, const at::Tensor& x, const at::Tensor& y) const;
  bool adapts(size_t section, int block) const { return sections_[section].targets.contains(block); }
  // What the pair adds to one part's weight, [out, in]; undefined where it has none.
  at::Tensor delta(size_t section, size_t block, size_t part) const;

  std::vector<ParamStorage*> units();
  std::vector<const ParamStorage*> units() const;
  // Of one section; null where it has no pairs.
  ParamStorage* unit_of(size_t section) const { return sections_[section].unit.get(); }
  // Modules with a pair, and those linears' without one, by their names in the checkpoint; in the model's order.
  const std::vector<std::pair<std::string, LowRank>>& modules() const { return modules_; }
  const std::vector<std::string>& other_modules() const { return other_modules_; }

 private:
  struct Pair {
    size_t part, parts;  // of the weight's block: the first, and how many
    LowRank low;
    int64_t first_row;  // of its share of the A block
    size_t b_block;     // in the adapter's unit
    std::optional<ops::Linear> up{};
  };
  struct Target {
    bool row_invariant() const;
    size_t a_block;
    std::vector<Pair> pairs;
    std::vector<int64_t> widths;  // of the weight's parts
    std::optional<ops::Linear> down{};
    void bind(const Kernels& kernels, at::ScalarType dtype, const std::vector<ParamBlock>& blocks);
  };
  struct SectionPairs {
    std::map<int, Target> targets;  // by block
    std::unique_ptr<ParamStorage> unit;
  };

  void add_pairs(Target& target, std::vector<ParamBlock>& blocks, const std::vector<ParamSpec>& parts,
                 const Choice& choice);

  AdapterSettings settings_;
  std::vector<SectionPairs> sections_;
  std::vector<std::pair<std::string, LowRank>> modules_;
  std::vector<std::string> other_modules_;
};

// The adapted module of a weight: "model.layers.0.self_attn.q_proj" of "model.layers.0.self_attn.q_proj.weight".
std::string module_of(const ParamSpec& weight);

// Which blocks of a section are of a kind that may be trained beside an adapter: "norms", "biases", "embeddings".
std::vector<bool> blocks_of_kinds(const Section& section, const std::vector<std::string>& kinds);

}  // namespace dsengine
