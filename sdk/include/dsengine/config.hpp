// A model's config.json, as its plugin reads it.
//
//   const auto width = c.positive("hidden_size");
//   const auto eps = c.real("rms_norm_eps", 1e-6);                    // or its default where absent or null
//   c.require(c.integer("n_shared_experts", 0) == 0, "shared experts are not supported");
//
// A value of another type is an error that names file and key.
//
// UNSTABLE: the model tables of the ABI are not frozen yet.
#pragma once
#include <string>
#include <vector>

#include "plugin.hpp"

namespace [[gnu::visibility("hidden")]] dse {

enum Activation { silu, relu, gelu, gelu_tanh };

// The model's config.json. A path is keys joined by '.'; in a list the key is an index.
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
  // A size: from 1 to 2^31 - 1, so that what is computed of two stays within 64 bits.
  int64_t positive(const char* path) const {
    const int64_t value = integer(path);
    require(value > 0 && value <= INT32_MAX,
            std::string(path) + " should be from 1 to 2147483647, is " + std::to_string(value));
    return value;
  }
  int64_t positive(const char* path, int64_t fallback) const { return has(path) ? positive(path) : fallback; }
  double real(const char* path) const { return get<double>(builder_.real, path); }
  double real(const char* path, double fallback) const { return has(path) ? real(path) : fallback; }
  // A number of at least 0, or above 0.
  double not_negative(const char* path, double fallback) const {
    const double value = real(path, fallback);
    require(value >= 0, std::string(path) + " should be at least 0, is " + std::to_string(value));
    return value;
  }
  double above_zero(const char* path, double fallback) const {
    const double value = real(path, fallback);
    require(value > 0, std::string(path) + " should be above 0, is " + std::to_string(value));
    return value;
  }
  bool boolean(const char* path, bool fallback) const {
    return has(path) ? get<int32_t>(builder_.boolean, path) != 0 : fallback;
  }
  std::string string(const char* path, const char* fallback) const {
    return has(path) ? get<const char*>(builder_.string, path) : fallback;
  }
  // There and null, which to transformers often means "without", where absent means its default.
  bool null(const char* path) const {
    int32_t result = 0;
    check(builder_.is_null(config_, path, &result));
    return result != 0;
  }
  // A list of numbers; empty where absent.
  std::vector<double> reals(const std::string& path) const {
    std::vector<double> values;
    for (std::string at = path + ".0"; has(at.c_str()); at = path + "." + std::to_string(values.size()))
      values.push_back(real(at.c_str()));
    return values;
  }
  // Whether a layer attends to a window alone, as the list layer_types says; or `otherwise`, where there is none.
  bool sliding_layer(int64_t layer, bool otherwise) const {
    if (!has("layer_types")) return otherwise;
    const std::string at = "layer_types." + std::to_string(layer);
    const std::string kind = get<const char*>(builder_.string, at.c_str());
    require(kind == "sliding_attention" || kind == "full_attention", at + " = '" + kind + "' is not supported");
    return kind == "sliding_attention";
  }
  // An activation by its Hugging Face name.
  Activation activation(const char* path, const char* fallback) const {
    const std::string name = string(path, fallback);
    if (name == "silu" || name == "swish") return silu;
    if (name == "relu") return relu;
    if (name == "gelu" || name == "gelu_python") return gelu;
    for (const char* tanh : {"gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"})
      if (name == tanh) return gelu_tanh;
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

}  // namespace dse
