#include "model/graph.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>

#include "base/check.h"
#include "base/printable.h"
#include "model/operator_arguments.h"
#include "plugin/host.h"
#include "plugin/normalise.h"

namespace dsengine {

std::vector<const Operator*> ModelGraph::attentions() const {
  std::vector<const Operator*> result;
  for (const auto& section : sections)
    for (const auto& op : section.operators)
      if (op.kind == Operator::attention) result.push_back(&op);
  return result;
}

bool holds_linears(const Section& section) {
  std::set<int> linears;
  for (const auto& op : section.operators) {
    const bool linear = op.kind == Operator::linear || op.out_weight >= 0;
    if (!linear && op.weight >= 0 && section.blocks[size_t(op.weight)].decay()) return false;
    if (linear) linears.insert({op.weight, op.out_weight});
  }
  bool any = false;
  for (size_t b = 0; b < section.blocks.size(); ++b) {
    if (!section.blocks[b].decay()) continue;
    if (!linears.contains(int(b))) return false;
    any = true;
  }
  return any;
}

ParamSpec value_head(const ModelGraph& graph) {
  return {.tensor = "score.weight", .shape = {1, graph.width}, .init = Init::zeros, .role = ParamRole::value_head};
}

namespace {

// More than any model has; each costs memory when it is declared.
constexpr int64_t kMostLayers = 10'000;
constexpr int64_t kMostPositions = int64_t{1} << 40;

RopeSpec rope_of(OperatorArguments& a, int64_t head_dim) {
  RopeSpec rope{a.reals("rope_frequency"), a.reals("rope_long_frequency"), a.integer("rope_long_after"),
                float(a.not_negative("rope_amplitude"))};
  for (const auto* list : {&rope.frequencies, &rope.long_frequencies})
    for (const float f : *list)
      DSE_CHECK_USER(std::isfinite(f) && f >= 0, "a rotary frequency of {}: see the rope's keys and theta", f);
  DSE_CHECK_USER(int64_t(rope.frequencies.size()) * 2 <= head_dim, "{} rotary frequencies on a head of {} dimensions",
                 rope.frequencies.size(), head_dim);
  DSE_CHECK_USER(
      rope.long_frequencies.empty() || (rope.long_frequencies.size() == rope.frequencies.size() && rope.long_after > 0),
      "{} rotary frequencies, {} for sequences longer than {}", rope.frequencies.size(), rope.long_frequencies.size(),
      rope.long_after);
  return rope;
}

Activation activation_of(const std::string& name) {
  static const std::map<std::string, Activation> known{{"silu", Activation::silu},
                                                       {"relu", Activation::relu},
                                                       {"gelu", Activation::gelu},
                                                       {"gelu_tanh", Activation::gelu_tanh}};
  const auto it = known.find(name);
  DSE_CHECK_USER(it != known.end(), "activation '{}' is not known", shown(name));
  return it->second;
}

}  // namespace

// State of one declaration: dse_graph and dse_config of the ABI.
class GraphBuilder {
 public:
  explicit GraphBuilder(const Json& config) : config_(config) { begin_section("embed"); }

  // May be null, in both senses. What stands where a table or a list should is an error, not "absent".
  const Json* look_up(const char* path) const {
    const Json* at = &config_;
    std::string_view rest = path;
    while (!rest.empty()) {
      const auto dot = rest.find('.');
      const auto key = rest.substr(0, dot);
      if (at->is_null()) return nullptr;
      size_t index = 0;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), index);
      const bool in_list = error == std::errc() && end == key.data() + key.size();
      const std::string_view before(path, size_t(key.data() - path));
      DSE_CHECK_USER(in_list ? at->is_array() : at->is_object(), "'{}' should be {}, is {}",
                     before.substr(0, before.empty() ? 0 : before.size() - 1), in_list ? "a list" : "an object",
                     shown(at->dump()));
      if (in_list) {
        if (index >= at->size()) return nullptr;
        at = &(*at)[index];
        DSE_CHECK_USER(!at->is_null(), "'{}{}' is null, in a list of values", before, key);
      } else {
        if (!at->contains(key)) return nullptr;
        at = &(*at)[std::string(key)];
      }
      rest = dot == rest.npos ? "" : rest.substr(dot + 1);
    }
    return at;
  }
  const Json* find(const char* path) const {
    const Json* value = look_up(path);
    return value && !value->is_null() ? value : nullptr;
  }
  const Json& require(const char* path) const {
    const Json* value = find(path);
    DSE_CHECK_USER(value, "'{}' is missing", path);
    return *value;
  }

  void layer(int64_t index) {
    if (index >= 0) {
      DSE_CHECK_USER(index == graph_.layers, "layer {} declared after {} layers", index, graph_.layers);
      DSE_CHECK_USER(index < kMostLayers, "asks for more than {} layers", kMostLayers);
      begin_section(fmt::format("layers.{}", index));
      ++graph_.layers;
    } else {
      begin_section("final");
    }
  }

  int add(const dse_operator& op) {
    OperatorArguments a(op);
    const std::string name = op.name;
    if (name == "head") return head(op, a);
    DSE_CHECK_USER(graph_.head.tensor.empty(), "operator {} after the head", name);
    Section& section = graph_.sections.back();
    Operator node{};
    for (uint32_t i = 0; i < op.input_count; ++i) node.inputs.push_back(input(section, op.inputs[i]));
    fill(node, name, a, section);
    a.finish();
    node.output = int(widths_.size());
    widths_.push_back(node.width);
    section_of_.push_back(graph_.sections.size() - 1);
    section.output = node.output;
    section.operators.push_back(std::move(node));
    return section.output;
  }

  ModelGraph finish() {
    DSE_CHECK_USER(!graph_.head.tensor.empty(), "the model plugin declared no head");
    const Json* causal = find("is_causal");
    DSE_CHECK_USER(!causal || *causal == Json(true),
                   "'is_causal' = {}: a model that sees what comes after a token cannot be asked for that token",
                   shown(causal->dump()));
    if (const Json* positions = find("max_position_embeddings")) {
      const auto count = whole_number(*positions, 1, kMostPositions);
      DSE_CHECK_USER(count, "'max_position_embeddings' should be a whole number from 1 to {}, is {}", kMostPositions,
                     shown(positions->dump()));
      bound_positions(*count);
    }
    check_ids();
    return std::move(graph_);
  }

 private:
  void begin_section(std::string name) {
    const int before = graph_.sections.empty() ? -1 : graph_.sections.back().output;
    graph_.sections.push_back({std::move(name), {}, {}, before, before});
  }

  int input(const Section& section, dse_tensor value) {
    DSE_CHECK_USER(value > 0 && value < widths_.size(), "an operator reads the unknown value {}", value);
    DSE_CHECK_USER(section_of_[value] == graph_.sections.size() - 1 || int(value) == section.input,
                   "{} reads a value of an earlier section; a layer reads only the activation it starts from",
                   section.name);
    return int(value);
  }

  int block(Section& section, std::vector<ParamSpec> parts) {
    section.blocks.push_back({std::move(parts)});
    return int(section.blocks.size()) - 1;
  }
  // Adjacent linear parameters that read one input; biases all or none.
  void linears(Section& section, OperatorArguments& a, std::vector<std::pair<ParamRole, int64_t>> outs, int64_t in,
               int& weight, int& bias) {
    std::vector<ParamSpec> weights, biases;
    for (const auto& [role, out] : outs) {
      const std::string prefix = role == ParamRole::linear ? "" : name_of(role) + std::string(".");
      weights.push_back(a.required(prefix + "weight", {out, in}, Init::normal, role));
      if (auto spec = a.parameter(prefix + "bias", {out}, Init::zeros, role)) biases.push_back(*std::move(spec));
    }
    DSE_CHECK_USER(biases.empty() || biases.size() == outs.size(),
                   "biases on some of the parameters of one "
                   "fused operator");
    weight = block(section, std::move(weights));
    if (!biases.empty()) bias = block(section, std::move(biases));
  }

  // What the engine reads beside the declaration: ids that mean something, and how weights are drawn.
  void check_ids() const {
    for (const char* name : {"bos_token_id", "eos_token_id", "pad_token_id"})
      if (const Json* given = find(name))
        for (const auto& id : given->is_array() && name != std::string_view("pad_token_id") ? *given : Json{*given})
          DSE_CHECK_USER(whole_number(id, -1, INT32_MAX), "'{}' should be a token's id, is {}", name,
                         shown(given->dump()));
    for (const char* name : {"initializer_range", "init_std"})
      if (const Json* range = find(name))
        DSE_CHECK_USER(range->is_number() && range->get<double>() >= 0, "'{}' should be a number of at least 0, is {}",
                       name, shown(range->dump()));
  }

  void bound_positions(int64_t count) {
    DSE_CHECK_USER(count > 0, "no position has a row");
    graph_.max_positions = graph_.max_positions > 0 ? std::min(graph_.max_positions, count) : count;
  }
  void fill(Operator& node, const std::string& name, OperatorArguments& a, Section& section);
  void fill_attention(Operator& node, OperatorArguments& a, Section& section, int64_t in);
  int head(const dse_operator& op, OperatorArguments& a);

  const Json& config_;
  ModelGraph graph_;
  std::vector<int64_t> widths_{0};  // by value; value 0 is none
  std::vector<size_t> section_of_{0};
  int attention_count_ = 0;
};

void GraphBuilder::fill(Operator& node, const std::string& name, OperatorArguments& a, Section& section) {
  const auto inputs = [&](size_t count) {
    DSE_CHECK_USER(node.inputs.size() == count, "operator {} takes {} inputs, has {}", name, count, node.inputs.size());
  };
  const int64_t in = node.inputs.empty() ? 0 : widths_[node.inputs[0]];
  if (name == "embed" || name == "positions") {
    inputs(0);
    const bool embed = name == "embed";
    node.kind = embed ? Operator::embed : Operator::positions;
    const int64_t rows = a.positive(embed ? "vocabulary" : "count");
    node.width = a.positive("width");
    if (embed)
      node.factor = a.real("scale"), graph_.vocabulary = rows;
    else
      node.offset = a.integer("offset"), bound_positions(rows - node.offset);
    node.weight = block(section, {a.required("weight", {rows, node.width}, Init::normal,
                                             embed ? ParamRole::embedding : ParamRole::positions)});
    return;
  }
  inputs(name == "add" ? 2 : 1);
  node.width = in;
  if (name == "rms_norm" || name == "layer_norm") {
    node.kind = name == "rms_norm" ? Operator::rms_norm : Operator::layer_norm;
    node.eps = a.not_negative("eps");
    const bool rms = node.kind == Operator::rms_norm;
    if (rms) node.shift = a.real("offset");
    // Begun as no change: a weight of 1, or what is added to 1.
    auto weight = a.parameter("weight", {in}, node.shift == 1 ? Init::zeros : Init::ones, ParamRole::norm);
    DSE_CHECK_USER(weight || !rms, "an rms_norm without a weight");
    if (weight) node.weight = block(section, {*std::move(weight)});
    if (auto bias = rms || node.weight < 0 ? std::nullopt : a.parameter("bias", {in}, Init::zeros, ParamRole::norm))
      node.bias = block(section, {*std::move(bias)});
  } else if (name == "linear") {
    node.kind = Operator::linear;
    node.width = a.positive("width");
    linears(section, a, {{ParamRole::linear, node.width}}, in, node.weight, node.bias);
  } else if (name == "attention") {
    fill_attention(node, a, section, in);
  } else if (name == "gated_mlp" || name == "mlp") {
    const bool gated = name == "gated_mlp";
    node.kind = gated ? Operator::gated_mlp : Operator::mlp;
    const int64_t width = a.positive("width");
    node.activation = activation_of(a.string("activation"));
    if (gated)
      linears(section, a, {{ParamRole::gate, width}, {ParamRole::up, width}}, in, node.weight, node.bias);
    else
      linears(section, a, {{ParamRole::up, width}}, in, node.weight, node.bias);
    linears(section, a, {{ParamRole::down, in}}, width, node.out_weight, node.out_bias);
  } else if (name == "add") {
    node.kind = Operator::add;
    DSE_CHECK_USER(in == widths_[node.inputs[1]], "add of widths {} and {}", in, widths_[node.inputs[1]]);
  } else if (name == "scale") {
    node.kind = Operator::scale;
    node.factor = a.real("factor");
  } else {
    user_error(error_line("this engine does not know the operator '{}'", name));
  }
}

void GraphBuilder::fill_attention(Operator& node, OperatorArguments& a, Section& section, int64_t in) {
  node.kind = Operator::attention;
  node.heads = a.positive("heads"), node.kv_heads = a.positive("kv_heads"), node.head_dim = a.positive("head_dim");
  DSE_CHECK_USER(node.heads % node.kv_heads == 0, "{} attention heads do not divide into {} key-value heads",
                 node.heads, node.kv_heads);
  const double scale = a.not_negative("scale");
  node.scores = {scale > 0 ? scale : 1 / std::sqrt(double(node.head_dim)), a.integer("window"),
                 a.not_negative("softcap")};
  DSE_CHECK_USER(node.scores.window >= 0, "an attention window of {}", node.scores.window);
  node.eps = a.not_negative("norm_eps");
  node.rope = rope_of(a, node.head_dim);
  graph_.long_after = std::max(graph_.long_after, node.rope.long_after);
  const int64_t q = node.heads * node.head_dim, kv = node.kv_heads * node.head_dim;
  linears(section, a, {{ParamRole::q, q}, {ParamRole::k, kv}, {ParamRole::v, kv}}, in, node.weight, node.bias);
  linears(section, a, {{ParamRole::o, in}}, q, node.out_weight, node.out_bias);
  for (const auto& [role, norm] : {std::pair{"q_norm.weight", &node.q_norm}, {"k_norm.weight", &node.k_norm}})
    if (auto weight = a.parameter(role, {node.head_dim}, Init::ones, ParamRole::norm))
      *norm = block(section, {*std::move(weight)});
  node.attention_index = attention_count_++;
}

int GraphBuilder::head(const dse_operator& op, OperatorArguments& a) {
  DSE_CHECK_USER(op.input_count == 1 && graph_.head.tensor.empty(), "one head with one input");
  Section& section = graph_.sections.back();
  section.output = input(section, op.inputs[0]);
  graph_.width = widths_[op.inputs[0]];
  const int64_t vocabulary = a.positive("vocabulary");
  DSE_CHECK_USER(vocabulary == graph_.vocabulary, "a head of {} tokens on an embedding of {}", vocabulary,
                 graph_.vocabulary);
  graph_.head_tied = a.boolean("tied");
  graph_.logit_softcap = a.not_negative("softcap");
  graph_.head = a.required("weight", {vocabulary, graph_.width}, Init::normal, ParamRole::head);
  a.finish();
  if (graph_.head_tied) {
    const auto& embed = graph_.sections[0].operators;
    for (const auto& node : embed)
      if (node.kind == Operator::embed) graph_.tied_block = node.weight;
    DSE_CHECK_USER(graph_.tied_block >= 0, "a tied head without an embedding");
  }
  return 0;
}

namespace {

GraphBuilder& builder_of(dse_graph* graph) { return *reinterpret_cast<GraphBuilder*>(graph); }
const GraphBuilder& builder_of(const dse_config* config) { return *reinterpret_cast<const GraphBuilder*>(config); }

template <class Body>
dse_status guarded(Body&& body) {
  try {
    body();
    return DSE_OK;
  } catch (const std::exception& e) {
    return host_table().fail(DSE_BAD_DATA, e.what());
  }
}

uint32_t type_of(const Json* value) {
  if (!value) return 0;
  return value->is_boolean()          ? DSE_OPTION_BOOLEAN
         : value->is_number_integer() ? DSE_OPTION_INTEGER
         : value->is_number()         ? DSE_OPTION_REAL
                                      : DSE_OPTION_STRING;
}

template <class T, class Check>
dse_status read_value(const dse_config* config, const char* path, T* out, const char* kind, Check&& fits) {
  return guarded([&] {
    const Json& value = builder_of(config).require(path);
    DSE_CHECK_USER(fits(value), "'{}' should be {}, is {}", path, kind, shown(value.dump()));
    *out = value.get<T>();
  });
}

constexpr dse_builder kBuilder{
    sizeof(dse_builder),
    0,
    [](const dse_config* c, const char* path, uint32_t* type) {
      return guarded([&] { *type = type_of(builder_of(c).find(path)); });
    },
    [](const dse_config* c, const char* path, int32_t* out) {
      return guarded([&] {
        const Json& value = builder_of(c).require(path);
        DSE_CHECK_USER(value.is_boolean(), "'{}' should be true or false, is {}", path, shown(value.dump()));
        *out = value.get<bool>();
      });
    },
    [](const dse_config* c, const char* path, int64_t* out) {
      return read_value(c, path, out, "an integer",
                        [](const Json& v) { return whole_number(v, INT64_MIN, INT64_MAX).has_value(); });
    },
    [](const dse_config* c, const char* path, double* out) {
      return read_value(c, path, out, "a number", [](const Json& v) { return v.is_number(); });
    },
    [](const dse_config* c, const char* path, const char** out) {
      return guarded([&] {
        const Json& value = builder_of(c).require(path);
        DSE_CHECK_USER(value.is_string(), "'{}' should be a string, is {}", path, shown(value.dump()));
        *out = value.get_ref<const std::string&>().c_str();
      });
    },
    [](dse_graph* g, int64_t index) { return guarded([&] { builder_of(g).layer(index); }); },
    [](dse_graph* g, const dse_operator* op, dse_tensor* output) {
      return guarded([&] { *output = dse_tensor(builder_of(g).add(read_struct<dse_operator>(op, "operator"))); });
    },
    [](const dse_config* c, const char* path, int32_t* out) {
      return guarded([&] {
        const Json* value = builder_of(c).look_up(path);
        *out = value && value->is_null();
      });
    }};

}  // namespace

ModelGraph declare(const dse_model& model, const Json& config, const std::string& where) {
  DSE_CHECK_USER(config.is_object(), "{}: expected a JSON object", where);
  GraphBuilder builder(config);
  call_plugin(where, model.declare, &kBuilder, reinterpret_cast<const dse_config*>(&builder),
              reinterpret_cast<dse_graph*>(&builder));
  ModelGraph graph;
  check_status(guarded([&] { graph = builder.finish(); }), where);
  return graph;
}

}  // namespace dsengine
