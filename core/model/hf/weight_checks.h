// What a config.json asks for, held against what is there, before memory is taken for it.
//
//   check_weights(graph, ModelKind::language, weights, false, "models/x");
//   check_memory(graph, at::kFloat, {}, device, "models/x/config.json");
//
// And the names under which a checkpoint keeps what a graph declares.
#pragma once
#include <c10/core/ScalarType.h>

#include <string>

#include "base/model_kind.h"
#include "base/stream_settings.h"
#include "device/device.h"
#include "files/weights.h"
#include "model/graph.h"

namespace dsengine {

class StoredNames {
 public:
  StoredNames(const WeightDirectory& weights, const ModelGraph& graph);
  const std::string& head() const { return head_; }
  // Whether the embedding is tied to a head that the checkpoint has too.
  bool is_tied(const std::string& declared) const { return declared == tied_ && weights_.find(head_); }
  // A tied embedding may be there as the head alone.
  std::string of(const std::string& declared) const;

 private:
  const WeightDirectory& weights_;
  std::string declared_head_, head_, tied_;
};

// UserError unless the weights have every tensor that the graph asks for, in its shape. A value head may be missing
// where `new_value_head`.
void check_weights(const ModelGraph& graph, ModelKind kind, const WeightDirectory& weights, bool new_value_head,
                   const std::string& directory);
// UserError where the graph's parameters are more than the device's memory, and the host's where they are streamed from
// it; `where` names config.json.
void check_memory(const ModelGraph& graph, at::ScalarType dtype, StreamSettings streamed, const Device& device,
                  const std::string& where);

}  // namespace dsengine
