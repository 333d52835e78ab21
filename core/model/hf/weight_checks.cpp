#include "model/hf/weight_checks.h"

#include <set>

#include "base/check.h"
#include "base/memory_size.h"
#include "base/nf4.h"
#include "base/printable.h"
#include "model/hf/stored_tensors.h"
#include "ops/wide.h"

namespace dsengine {
namespace {

// The name under which a checkpoint keeps a tensor: as declared, or without its outermost parts ("model.", …).
std::string stored_name(const WeightDirectory& weights, const std::string& name) {
  for (std::string shorter = name; shorter.find('.') != shorter.npos; shorter.erase(0, shorter.find('.') + 1))
    if (weights.find(shorter)) return shorter;
  return name;
}

// The graph's parameters, the head left out.
std::vector<const ParamSpec*> parameters_of(const ModelGraph& graph) {
  std::vector<const ParamSpec*> specs;
  for (const auto& section : graph.sections)
    for (const auto& block : section.blocks)
      for (const auto& part : block.parts) specs.push_back(&part);
  return specs;
}

}  // namespace

// The head's own name, or "lm_head.weight", which is what transformers calls every family's.
StoredNames::StoredNames(const WeightDirectory& weights, const ModelGraph& graph)
    : weights_(weights), declared_head_(graph.head.tensor), head_(stored_name(weights, declared_head_)) {
  if (!weights.find(head_) && weights.find("lm_head.weight")) head_ = "lm_head.weight";
  if (graph.head_tied) tied_ = graph.sections[0].blocks[size_t(graph.tied_block)].parts[0].tensor;
}

std::string StoredNames::of(const std::string& declared) const {
  if (declared == declared_head_) return head_;
  std::string name = stored_name(weights_, declared);
  return is_tied(declared) && !weights_.find(name) ? head_ : name;
}

void check_weights(const ModelGraph& graph, ModelKind kind, const WeightDirectory& weights, bool new_value_head,
                   const std::string& directory) {
  const StoredNames names(weights, graph);
  std::vector<StoredPiece> pieces;  // without values
  for (const auto* spec : parameters_of(graph)) pieces.push_back({spec, {}});
  const ParamSpec score = value_head(graph);
  if (kind == ModelKind::value)
    pieces.push_back({&score, {}});
  else if (!graph.head_tied)
    pieces.push_back({&graph.head, {}});
  std::set<std::string> missing;
  for (const auto& stored : stored_tensors(pieces)) {
    const std::string name = names.of(stored.name);
    if (weights.find(name)) {
      stored.check(weights, name, directory);
    } else if (stored.name == score.tensor) {
      DSE_CHECK_USER(new_value_head,
                     "{}: no score.weight: this is not a reward model (…ForSequenceClassification with one label)",
                     directory);
    } else {
      missing.insert(stored.name);
    }
  }
  DSE_CHECK_USER(missing.empty(), "{}: tensors missing from the weights: {}", directory, shown_list(missing));
}

void check_memory(const ModelGraph& graph, at::ScalarType dtype, StreamSettings streamed, const Device& device,
                  const std::string& where) {
  // What is trained has a wider value beside, where there is one.
  const at::ScalarType wide = ops::wide(dtype);
  const auto dense = double(c10::elementSize(dtype)) +
                     (streamed.trained && streamed.wide && wide != dtype ? double(c10::elementSize(wide)) : 0);
  double count = 0, bytes = 0;
  for (const auto& section : graph.sections) {
    // A code of half a byte, and a scale for each block.
    const double element =
        streamed.format == FrozenFormat::nf4 && holds_linears(section) ? 0.5 + 4.0 / nf4::kBlock : dense;
    for (const auto& block : section.blocks) {
      const double own = double(block.rows()) * double(block.row_numel());
      count += own, bytes += own * element;
    }
  }
  const auto own = device.free_memory();  // none: it is the host's
  const auto memory = double(own.value_or(0)) + (!own || streamed.offload ? double(available_memory()) : 0);
  DSE_CHECK_USER(bytes < memory, "{}: asks for {:.3g} parameters, {:.3g} GB; there are {:.3g} GB of memory", where,
                 count, bytes / 1e9, memory / 1e9);
}

}  // namespace dsengine
