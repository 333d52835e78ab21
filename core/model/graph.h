// A model as its plugin declared it: sections of operators, each with the parameters it reads.
//
//   ModelGraph graph = declare(item.model(), config, directory / "config.json");
//   graph.sections[0]                 // embeddings; 1 … layers: one layer each; last: final norm
//
// Built by the ABI's dse_builder. Values are numbered; a section reads the value that the section before it
// ended with (and its own), which is what lets the executor recompute, offload and shard by layer.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "dsengine/abi.h"
#include "ops/operation.h"
#include "param/layout.h"

namespace dsengine {

struct Operator {
  enum Kind { embed, positions, rms_norm, layer_norm, linear, attention, gated_mlp, mlp, add, scale };
  Kind kind;
  std::vector<int> inputs;
  int output;
  int64_t width;       // of the output
  double eps = 0;      // norms, and those of attention's heads
  double shift = 0;    // added to the weight of an rms_norm
  double factor = 1;   // scale, embed
  int64_t offset = 0;  // positions
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  AttentionScores scores;
  RopeSpec rope;
  Activation activation = Activation::silu;
  // Blocks of the section's unit; -1: none. Attention: qkv and o; mlp: up (or gate|up) and down.
  int weight = -1, bias = -1, out_weight = -1, out_bias = -1;
  int q_norm = -1, k_norm = -1;
  int attention_index = -1;  // counts attention operators: the KV cache's layer
};

struct Section {
  std::string name;  // "embed", "layers.0", …, "final"
  std::vector<Operator> operators;
  std::vector<ParamBlock> blocks;
  int input = -1, output = -1;  // values; input -1: none
};

// Whether all of its matrices, of which it has some, are weights of linears: nothing else reads them.
bool holds_linears(const Section& section);

struct ModelGraph {
  std::string architecture;
  std::vector<Section> sections;
  int64_t layers = 0, width = 0, vocabulary = 0;
  int64_t max_positions = 0;  // 0: no bound
  ParamSpec head;             // [vocabulary, width]
  bool head_tied = false;     // the head is block `tied_block` of section 0
  int tied_block = -1;
  double logit_softcap = 0;  // logits become softcap * tanh(logit / softcap); 0: none
  int64_t long_after = 0;    // longer sequences turn their positions otherwise (RopeSpec); 0: none do
  std::vector<const Operator*> attentions() const;
};

// What a reward model or critic has in the head's place, [1, width].
ParamSpec value_head(const ModelGraph& graph);

// Runs the plugin's declaration on a config.json; `where` names it in errors.
ModelGraph declare(const dse_model& model, const Json& config, const std::string& where);

}  // namespace dsengine
