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

#include "plugin.hpp"

namespace [[gnu::visibility("hidden")]] dse {

enum Activation { silu, relu, gelu, gelu_tanh };

// Rotary positions. The pairs are (i, i + rotary_width / 2), as Hugging Face stores LLaMA.
struct Rope {
  double theta = 0;                 // 0: none
  int64_t width = 0;                // dimensions of a head that turn; 0: all
  std::string scaling = "default";  // default, linear, llama3
  double factor = 1, low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_context = 0;
};

// The model's config.json. A path is keys joined by '.'.
class Config {
 public:
  Config(const dse_builder& b, const dse_config* c) : builder_(b), config_(c) {}

  bool has(const char* path) const {
    uint32_t type = 0;
    check(builder_.find(config_, path, &type));
    return type != 0;
  }
  int64_t integer(const char* path) const { return get<int64_t>(builder_.integer, path); }
  int64_t integer(const char* path, int64_t fallback) const { return has(path) ? integer(path) : fallback; }
  // A size: at least 1.
  int64_t positive(const char* path) const {
    const int64_t value = integer(path);
    require(value > 0, std::string(path) + " should be at least 1, is " + std::to_string(value));
    return value;
  }
  int64_t positive(const char* path, int64_t fallback) const { return has(path) ? positive(path) : fallback; }
  double real(const char* path) const { return get<double>(builder_.real, path); }
  double real(const char* path, double fallback) const { return has(path) ? real(path) : fallback; }
  bool boolean(const char* path, bool fallback) const {
    return has(path) ? get<int32_t>(builder_.boolean, path) != 0 : fallback;
  }
  std::string string(const char* path, const char* fallback) const {
    return has(path) ? get<const char*>(builder_.string, path) : fallback;
  }
  // An activation by its Hugging Face name.
  Activation activation(const char* path, const char* fallback) const {
    const std::string name = string(path, fallback);
    if (name == "silu" || name == "swish") return silu;
    if (name == "relu") return relu;
    if (name == "gelu") return gelu;
    if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") return gelu_tanh;
    throw Failure(std::string(path) + ": activation '" + name + "' is not supported", DSE_UNSUPPORTED);
  }
  // Stops with a clear error where the config asks for what the declaration does not express.
  void require(bool condition, const std::string& what) const {
    if (!condition) throw Failure(what, DSE_UNSUPPORTED);
  }

 private:
  template <class T>
  T get(dse_status (*read)(const dse_config*, const char*, T*), const char* path) const {
    T value{};
    check(read(config_, path, &value));
    return value;
  }
  const dse_builder& builder_;
  const dse_config* config_;
};

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
struct Attention {  // causal; roles: q|k|v|o.weight, .bias
  int64_t heads, kv_heads, head_dim;
  double scale = 0;  // of q·k; 0: 1 / sqrt(head_dim)
  Rope rope = Rope();
  std::string q, k, v, o;
  bool qkv_bias = false, o_bias = false;
};
struct GatedMlp {  // down(activation(gate(x)) * up(x)); roles: gate|up|down.weight, .bias
  int64_t width;
  Activation activation = silu;
  std::string gate, up, down;
  bool bias = false;
};
struct Mlp {  // down(activation(up(x))); roles: up|down.weight, .bias
  int64_t width;
  Activation activation = relu;
  std::string up, down;
  bool bias = true;
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
  dse_tensor rms_norm(dse_tensor x, const std::string& weight, double eps) {
    return add("rms_norm", {x}, {{"eps", eps}}, {{"weight", weight}});
  }
  // Weight and bias are "<name>.weight" and "<name>.bias".
  dse_tensor layer_norm(dse_tensor x, const std::string& name, double eps) {
    return add("layer_norm", {x}, {{"eps", eps}}, {{"weight", name + ".weight"}, {"bias", name + ".bias"}});
  }
  dse_tensor linear(dse_tensor x, const Linear& l) {
    std::vector<Parameter> parameters;
    push_linear(parameters, "", l.name, l.bias);
    return add("linear", {x}, {{"width", l.width}}, parameters);
  }
  dse_tensor attention(dse_tensor x, const Attention& a) {
    std::vector<Parameter> parameters;
    push_linear(parameters, "q.", a.q, a.qkv_bias);
    push_linear(parameters, "k.", a.k, a.qkv_bias);
    push_linear(parameters, "v.", a.v, a.qkv_bias);
    push_linear(parameters, "o.", a.o, a.o_bias);
    return add("attention", {x},
               {{"heads", a.heads},
                {"kv_heads", a.kv_heads},
                {"head_dim", a.head_dim},
                {"scale", a.scale},
                {"rope_theta", a.rope.theta},
                {"rope_width", a.rope.width},
                {"rope_scaling", a.rope.scaling},
                {"rope_factor", a.rope.factor},
                {"rope_low_freq_factor", a.rope.low_freq_factor},
                {"rope_high_freq_factor", a.rope.high_freq_factor},
                {"rope_original_context", a.rope.original_context}},
               parameters);
  }
  dse_tensor gated_mlp(dse_tensor x, const GatedMlp& m) {
    std::vector<Parameter> parameters;
    push_linear(parameters, "gate.", m.gate, m.bias);
    push_linear(parameters, "up.", m.up, m.bias);
    push_linear(parameters, "down.", m.down, m.bias);
    return add("gated_mlp", {x}, {{"width", m.width}, {"activation", name_of(m.activation)}}, parameters);
  }
  dse_tensor mlp(dse_tensor x, const Mlp& m) {
    std::vector<Parameter> parameters;
    push_linear(parameters, "up.", m.up, m.bias);
    push_linear(parameters, "down.", m.down, m.bias);
    return add("mlp", {x}, {{"width", m.width}, {"activation", name_of(m.activation)}}, parameters);
  }
  dse_tensor add(dse_tensor a, dse_tensor b) { return add("add", {a, b}, {}, {}); }
  dse_tensor scale(dse_tensor x, double factor) { return add("scale", {x}, {{"factor", factor}}, {}); }
  void head(dse_tensor x, const Head& h) {
    add("head", {x}, {{"vocabulary", h.vocabulary}, {"tied", h.tied}}, {{"weight", h.weight}});
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
  };
  static const char* name_of(Activation a) {
    constexpr const char* names[] = {"silu", "relu", "gelu", "gelu_tanh"};
    return names[a];
  }
  static void push_linear(std::vector<Parameter>& to, const std::string& role, const std::string& name, bool bias) {
    to.push_back({role + "weight", name + ".weight"});
    if (bias) to.push_back({role + "bias", name + ".bias"});
  }
  dse_tensor add(const char* op, std::initializer_list<dse_tensor> inputs, std::initializer_list<Attribute> attributes,
                 const std::vector<Parameter>& parameters) {
    std::vector<dse_attribute> plain(attributes.begin(), attributes.end());
    std::vector<dse_parameter> names;
    for (const auto& p : parameters) names.push_back({sizeof(dse_parameter), 0, p.role.c_str(), p.tensor.c_str(), -1});
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
  DSE_PLUGIN(name, "1.0",                                                      \
             items.push_back(dse::model_item<declare>(name, dse_architectures, \
                                                      sizeof dse_architectures / sizeof *dse_architectures)))
