// Models: an architecture declared, not coded. From one declaration the engine trains, generates, shards,
// loads and saves.
//
//   void llama(const dse::Config& c, dse::Graph& g) {
//     auto x = g.embed({.weight = "model.embed_tokens.weight", .vocabulary = …, .width = …});
//     for (auto layer : g.layers(c.integer("num_hidden_layers"), "model.layers.{}.")) { x = g.add(x, …); }
//     g.head(g.rms_norm(x, "model.norm.weight", eps), {.weight = "lm_head.weight", .vocabulary = …});
//   }
//   DSE_MODEL("llama", llama, "LlamaForCausalLM")
//
// An activation is [N tokens, width]. A layer reads the activation it starts from and makes the next one.
// Linear parameters are given by the prefix of their checkpoint names: "….q_proj" means "….q_proj.weight",
// and with .bias = true "….q_proj.bias" too. Operators and their parameter roles are listed at each struct.
//
// UNSTABLE: the model tables of the ABI are not frozen yet.
#pragma once
#include <initializer_list>
#include <optional>

#include "rope.hpp"

namespace [[gnu::visibility("hidden")]] dse {

// A layer's names: layer("self_attn.q_proj") is "model.layers.3.self_attn.q_proj".
struct Layer {
  int64_t index;
  std::string prefix;
  std::string operator()(const std::string& name) const { return prefix + name; }
};

struct Embed {  // roles: weight [vocabulary, width]
  std::string weight;
  int64_t vocabulary, width;
  double scale = 1;
};
struct Positions {  // learned absolute positions, added by g.add; roles: weight [count, width]
  std::string weight;
  int64_t count, width;
  int64_t offset = 0;  // row of position 0
};
// How one checkpoint tensor holds q, k and v: all of q, then of k, then of v; or those of the first head, of the
// second…
enum class Fused { blocks, by_head };

struct Attention {  // causal; roles: q|k|v|o.weight, .bias; q_norm|k_norm.weight
  int64_t heads, kv_heads, head_dim;
  double scale = 0;  // of q·k; 0: 1 / sqrt(head_dim)
  Rope rope = Rope();
  int64_t window = 0;                          // a token sees itself and the window - 1 before it; 0: all
  double softcap = 0;                          // scores become softcap * tanh(score / softcap); 0: as they are
  std::string q = {}, k = {}, v = {}, o = {};  // or, instead of q, k and v:
  std::string qkv = {};                        // one tensor of all three
  Fused fused = Fused::blocks;                 // its order
  std::string q_norm = {}, k_norm = {};        // weights of RMS norms of each head, before the rotation; empty: none
  double norm_eps = 1e-6;                      // of these
  bool qkv_bias = false, o_bias = false;
  bool transposed = false;  // the checkpoint stores matrices as [in, out]
};
struct GatedMlp {  // down(activation(gate(x)) * up(x)); roles: gate|up|down.weight, .bias
  int64_t width;
  Activation activation = silu;
  std::string gate = {}, up = {}, down = {};  // or, instead of gate and up:
  std::string gate_up = {};                   // one tensor of both
  bool bias = false;
};
struct Mlp {  // down(activation(up(x))); roles: up|down.weight, .bias
  int64_t width;
  Activation activation = relu;
  std::string up, down;
  bool bias = true;
  bool transposed = false;  // the checkpoint stores matrices as [in, out]
};
struct RmsNorm {  // roles: weight
  std::string weight;
  double eps;
  double offset = 0;  // of the weight: 1 where the checkpoint keeps its distance from 1
};
struct LayerNorm {  // roles: weight, bias; "<name>.weight", "<name>.bias"
  std::string name;
  double eps;
  bool affine = true;  // false: neither of them
};
struct Linear {  // roles: weight [width, input width], bias
  std::string name;
  int64_t width;
  bool bias = false;
};
struct Head {  // logits; roles: weight [vocabulary, width]. Tied: names the embedding's tensor.
  std::string weight;
  int64_t vocabulary;
  bool tied = false;
  double softcap = 0;  // logits become softcap * tanh(logit / softcap); 0: as they are
};

// Where a parameter lies in its checkpoint tensor: see dse_parameter.
struct Stored {
  bool transposed = false;
  int64_t first_row = -1, group_rows = 0, group_stride = 0;
};

class Graph {
 public:
  Graph(const dse_builder& b, dse_graph* g) : builder_(b), graph_(g) {}

  dse_tensor embed(const Embed& e) {
    return add("embed", {}, {{"vocabulary", e.vocabulary}, {"width", e.width}, {"scale", e.scale}},
               {{"weight", e.weight}});
  }
  dse_tensor positions(const Positions& p) {
    return add("positions", {}, {{"count", p.count}, {"width", p.width}, {"offset", p.offset}}, {{"weight", p.weight}});
  }
  dse_tensor rms_norm(dse_tensor x, const RmsNorm& n) {
    return add("rms_norm", {x}, {{"eps", n.eps}, {"offset", n.offset}}, {{"weight", n.weight}});
  }
  dse_tensor rms_norm(dse_tensor x, const std::string& weight, double eps) {
    return rms_norm(x, RmsNorm{.weight = weight, .eps = eps});
  }
  dse_tensor layer_norm(dse_tensor x, const LayerNorm& n) {
    std::vector<Parameter> parameters;
    if (n.affine) parameters = {{"weight", n.name + ".weight"}, {"bias", n.name + ".bias"}};
    return add("layer_norm", {x}, {{"eps", n.eps}}, parameters);
  }
  dse_tensor layer_norm(dse_tensor x, const std::string& name, double eps) {
    return layer_norm(x, LayerNorm{.name = name, .eps = eps});
  }
  dse_tensor linear(dse_tensor x, const Linear& l) {
    std::vector<Parameter> parameters;
    push_linear(parameters, "", l.name, l.bias);
    return add("linear", {x}, {{"width", l.width}}, parameters);
  }
  dse_tensor attention(dse_tensor x, const Attention& a) {
    std::vector<Parameter> parameters;
    const int64_t d = a.head_dim, q = a.heads * d, kv = a.kv_heads * d;
    if (a.qkv.empty()) {
      push_linear(parameters, "q.", a.q, a.qkv_bias, {.transposed = a.transposed});
      push_linear(parameters, "k.", a.k, a.qkv_bias, {.transposed = a.transposed});
      push_linear(parameters, "v.", a.v, a.qkv_bias, {.transposed = a.transposed});
    } else {
      const bool by_head = a.fused == Fused::by_head;  // d rows each of q, k and v in turn
      const int64_t group = by_head ? d : 0, stride = by_head ? 3 * d : 0;
      const auto part = [&](const char* role, int64_t first) {
        push_linear(parameters, role, a.qkv, a.qkv_bias, {a.transposed, first, group, stride});
      };
      part("q.", 0), part("k.", by_head ? d : q), part("v.", by_head ? 2 * d : q + kv);
    }
    push_linear(parameters, "o.", a.o, a.o_bias, {.transposed = a.transposed});
    if (!a.q_norm.empty()) parameters.push_back({"q_norm.weight", a.q_norm});
    if (!a.k_norm.empty()) parameters.push_back({"k_norm.weight", a.k_norm});
    std::vector<Attribute> attributes{{"heads", a.heads},
                                      {"kv_heads", a.kv_heads},
                                      {"head_dim", d},
                                      {"scale", a.scale},
                                      {"window", a.window},
                                      {"softcap", a.softcap},
                                      {"norm_eps", a.norm_eps},
                                      {"rope_long_after", a.rope.long_after},
                                      {"rope_amplitude", a.rope.amplitude}};
    std::vector<double> frequencies = a.rope.frequencies;
    if (frequencies.empty() && a.rope.theta != 0)
      frequencies = rope_frequencies(a.rope.theta, a.rope.width != 0 ? a.rope.width : d);
    for (const double f : frequencies) attributes.push_back({"rope_frequency", f});
    for (const double f : a.rope.long_frequencies) attributes.push_back({"rope_long_frequency", f});
    return add("attention", {x}, attributes, parameters);
  }
  dse_tensor gated_mlp(dse_tensor x, const GatedMlp& m) {
    std::vector<Parameter> parameters;
    const bool fused = !m.gate_up.empty();
    push_linear(parameters, "gate.", fused ? m.gate_up : m.gate, m.bias, {.first_row = fused ? 0 : -1});
    push_linear(parameters, "up.", fused ? m.gate_up : m.up, m.bias, {.first_row = fused ? m.width : -1});
    push_linear(parameters, "down.", m.down, m.bias);
    return add("gated_mlp", {x}, {{"width", m.width}, {"activation", name_of(m.activation)}}, parameters);
  }
  dse_tensor mlp(dse_tensor x, const Mlp& m) {
    std::vector<Parameter> parameters;
    push_linear(parameters, "up.", m.up, m.bias, {.transposed = m.transposed});
    push_linear(parameters, "down.", m.down, m.bias, {.transposed = m.transposed});
    return add("mlp", {x}, {{"width", m.width}, {"activation", name_of(m.activation)}}, parameters);
  }
  dse_tensor add(dse_tensor a, dse_tensor b) { return add("add", {a, b}, {}, {}); }
  dse_tensor scale(dse_tensor x, double factor) { return add("scale", {x}, {{"factor", factor}}, {}); }
  void head(dse_tensor x, const Head& h) {
    add("head", {x}, {{"vocabulary", h.vocabulary}, {"tied", h.tied}, {"softcap", h.softcap}}, {{"weight", h.weight}});
  }

  // The layers in turn; {} in the prefix becomes the index.
  class Layers {
   public:
    struct End {};
    struct Iterator {
      Layers& layers;
      int64_t index = 0;
      Layer operator*() const {
        std::string prefix = layers.prefix_;
        if (const auto at = prefix.find("{}"); at != std::string::npos) prefix.replace(at, 2, std::to_string(index));
        check(layers.graph_.builder_.layer(layers.graph_.graph_, index));
        return {index, prefix};
      }
      Iterator& operator++() { return ++index, *this; }
      bool operator!=(End) const {
        if (index < layers.count_) return true;
        check(layers.graph_.builder_.layer(layers.graph_.graph_, -1));
        return false;
      }
    };
    Layers(Graph& graph, int64_t count, std::string prefix)
        : graph_(graph), count_(count), prefix_(std::move(prefix)) {}
    Iterator begin() { return {*this}; }
    End end() { return {}; }

   private:
    Graph& graph_;
    int64_t count_;
    std::string prefix_;
  };
  Layers layers(int64_t count, std::string prefix) { return {*this, count, std::move(prefix)}; }

 private:
  struct Attribute : dse_attribute {
    Attribute(const char* n, int64_t v) : dse_attribute{sizeof(dse_attribute), DSE_OPTION_INTEGER, n, v, 0, nullptr} {}
    Attribute(const char* n, bool v) : dse_attribute{sizeof(dse_attribute), DSE_OPTION_BOOLEAN, n, v, 0, nullptr} {}
    Attribute(const char* n, double v) : dse_attribute{sizeof(dse_attribute), DSE_OPTION_REAL, n, 0, v, nullptr} {}
    Attribute(const char* n, const std::string& v)
        : dse_attribute{sizeof(dse_attribute), DSE_OPTION_STRING, n, 0, 0, v.c_str()} {}
    Attribute(const char* n, const char* v) : dse_attribute{sizeof(dse_attribute), DSE_OPTION_STRING, n, 0, 0, v} {}
  };
  struct Parameter {
    std::string role, tensor;
    Stored stored = Stored();
  };
  static const char* name_of(Activation a) {
    constexpr const char* names[] = {"silu", "relu", "gelu", "gelu_tanh"};
    return names[a];
  }
  static void push_linear(std::vector<Parameter>& to, const std::string& role, const std::string& name, bool bias,
                          Stored stored = Stored()) {
    to.push_back({role + "weight", name + ".weight", stored});
    stored.transposed = false;
    if (bias) to.push_back({role + "bias", name + ".bias", stored});
  }
  dse_tensor add(const char* op, std::initializer_list<dse_tensor> inputs, const std::vector<Attribute>& attributes,
                 const std::vector<Parameter>& parameters) {
    std::vector<dse_attribute> plain(attributes.begin(), attributes.end());
    std::vector<dse_parameter> names;
    for (const auto& [role, tensor, at] : parameters)
      names.push_back({sizeof(dse_parameter), at.transposed, role.c_str(), tensor.c_str(), at.first_row, at.group_rows,
                       at.group_stride});
    const dse_operator description{
        sizeof(dse_operator),   uint32_t(inputs.size()), op, inputs.begin(), plain.data(), names.data(),
        uint32_t(plain.size()), uint32_t(names.size())};
    dse_tensor output = 0;
    check(builder_.add(graph_, &description, &output));
    return output;
  }

  const dse_builder& builder_;
  dse_graph* graph_;
};

using Declare = void (*)(const Config&, Graph&);

template <Declare declare>
Item model_item(const char* name, const char* const* architectures, uint32_t count) {
  static dse_model table{sizeof(dse_model), 0, nullptr,
                         [](const dse_builder* builder, const dse_config* config, dse_graph* graph) {
                           return guard([&] {
                             Graph g(*builder, graph);
                             declare(Config(*builder, config), g);
                           });
                         }};
  table.architectures = architectures;
  table.architecture_count = count;
  return {DSE_MODEL, name, "", &table, {}};
}

}  // namespace dse

#define DSE_MODEL(name, declare, ...)                                          \
  static const char* const dse_architectures[] = {__VA_ARGS__};                \
  DSE_ITEM_NOTE("model", name, "1.0", "", __VA_ARGS__);                        \
  DSE_PLUGIN(name, "1.0",                                                      \
             items.push_back(dse::model_item<declare>(name, dse_architectures, \
                                                      sizeof dse_architectures / sizeof *dse_architectures)))
