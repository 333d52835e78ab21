// Rotary positions (Su et al. 2021), and the scalings of them that transformers knows.
//
//   const dse::Rope rope = dse::rope_of(c, head_dim);                 // from config.json, old spelling or new
//   g.attention(h, {.heads = heads, .kv_heads = heads, .head_dim = head_dim, .rope = rope, …});
//
// The tables are those of transformers' modeling_rope_utils.py, computed in double.
//
// UNSTABLE: the model tables of the ABI are not frozen yet.
#pragma once
#include <algorithm>
#include <cmath>
#include <optional>

#include "config.hpp"

namespace [[gnu::visibility("hidden")]] dse {

// The pairs that turn are (i, i + width / 2) of a head, by position * frequency i.
struct Rope {
  double theta = 0;   // frequency i is theta^(-2i / width), unless `frequencies` say otherwise; 0: none
  int64_t width = 0;  // dimensions of a head that turn, its first; 0: all
  std::vector<double> frequencies = {};       // [width / 2], radians a position
  std::vector<double> long_frequencies = {};  // instead of them in sequences longer than long_after; empty: never
  int64_t long_after = 0;
  double amplitude = 1;  // of cosine and sine
};

// Of the first `turning` dimensions: one for each two, and for an odd last one.
inline std::vector<double> rope_frequencies(double theta, int64_t turning) {
  std::vector<double> result;
  for (int64_t i = 0; i < (turning + 1) / 2; ++i) result.push_back(std::pow(theta, -2.0 * double(i) / double(turning)));
  return result;
}

// What a family takes where config.json does not say.
struct RopeFamily {
  double theta = 10000;
  std::optional<double> share = {};  // of a head's dimensions that turn; none: all, the family knows nothing else
  int64_t original_context = 0;      // > 0: whatever the section says of it
};

// What rope_of reads: rope_parameters (transformers 5) or rope_scaling (where it holds something) with rope_theta
// beside.
class RopeConfig {
 public:
  explicit RopeConfig(const Config& c, int64_t original_context = 0) : config(c), original_(original_context) {
    for (const char* name : {"type", "rope_type", "factor", "rope_theta"})
      if (c.has((std::string("rope_scaling.") + name).c_str())) at_ = "rope_scaling.";
    for (const char* kind : {"full_attention", "sliding_attention"})
      c.require(!has(kind), at_ + kind + ": rotary positions of each kind of layer are not supported");
  }
  std::string key(const char* name) const { return at_ + name; }
  bool has(const char* name) const { return config.has(key(name).c_str()); }
  double real(const char* name, double fallback) const { return config.real(key(name).c_str(), fallback); }
  double above_zero(const char* name, double fallback) const { return config.above_zero(key(name).c_str(), fallback); }
  // In the section, or beside it.
  double either(const char* name, double fallback) const { return real(name, config.real(name, fallback)); }
  std::string type() const {
    return config.string(key("rope_type").c_str(), config.string(key("type").c_str(), "default").c_str());
  }
  // Length of the sequences that the model had learned when its positions were scaled.
  int64_t original_context() const {
    if (original_ > 0) return original_;
    const char* name = "original_max_position_embeddings";
    if (config.has(name)) return config.positive(name);
    return config.positive(key(name).c_str(), config.positive("max_position_embeddings"));
  }
  double factor() const {
    if (has("factor")) return above_zero("factor", 1);
    return double(config.positive("max_position_embeddings")) / double(original_context());
  }
  const Config& config;

 private:
  int64_t original_;
  std::string at_ = "rope_parameters.";
};

// Dubey et al. 2024: long waves are slowed, short ones kept, those between mixed.
inline void scale_llama3(Rope& rope, const RopeConfig& c) {
  const double low = c.above_zero("low_freq_factor", 1), high = c.above_zero("high_freq_factor", 4);
  const double factor = c.factor();
  c.config.require(low < high, c.key("high_freq_factor") + " should be above low_freq_factor");
  const double context = double(c.original_context());
  for (double& f : rope.frequencies) {
    const double wavelength = 2 * M_PI / f;
    const double smooth = (context / wavelength - low) / (high - low);
    if (wavelength > context / low)
      f /= factor;
    else if (wavelength >= context / high)
      f = (1 - smooth) * f / factor + smooth * f;
  }
}

// Peng et al. 2023.
inline void scale_yarn(Rope& rope, const RopeConfig& c) {
  const double factor = c.factor(), width = double(rope.width);
  const auto nonzero = [&](const char* name, double fallback) {
    const double value = c.real(name, fallback);
    return value != 0 ? value : fallback;
  };
  const auto dimension = [&](double rotations) {
    return width * std::log(double(c.original_context()) / (rotations * 2 * M_PI)) / (2 * std::log(rope.theta));
  };
  double low = dimension(nonzero("beta_fast", 32)), high = dimension(nonzero("beta_slow", 1));
  if (c.config.boolean(c.key("truncate").c_str(), true)) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, width - 1);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < rope.frequencies.size(); ++i) {
    const double slowed = std::clamp((double(i) - low) / (high - low), 0.0, 1.0);
    rope.frequencies[i] = rope.frequencies[i] / factor * slowed + rope.frequencies[i] * (1 - slowed);
  }
  const auto magnitude = [&](double share) { return factor <= 1 ? 1 : 0.1 * share * std::log(factor) + 1; };
  const double share = c.real("mscale", 0), all = c.real("mscale_all_dim", 0);
  rope.amplitude = c.real("attention_factor", share && all ? magnitude(share) / magnitude(all) : magnitude(1));
}

// Ding et al. 2024: frequency by frequency, otherwise in long sequences than in short ones.
inline void scale_longrope(Rope& rope, const RopeConfig& c) {
  const double factor = c.factor(), context = double(c.original_context());
  const auto scaled = [&](const char* name) {
    std::vector<double> result = c.config.reals(c.key(name));
    c.config.require(result.size() == rope.frequencies.size(),
                     c.key(name) + " should have " + std::to_string(rope.frequencies.size()) + " numbers");
    for (size_t i = 0; i < result.size(); ++i) {
      c.config.require(result[i] > 0, c.key(name) + " should be numbers above 0");
      result[i] = rope.frequencies[i] / result[i];
    }
    return result;
  };
  rope.long_frequencies = scaled("long_factor"), rope.frequencies = scaled("short_factor");
  rope.long_after = c.original_context();
  rope.amplitude = c.real("attention_factor", factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(context)));
}

// As config.json has it.
inline Rope rope_of(const Config& config, int64_t head_dim, const RopeFamily& family = {}) {
  const RopeConfig c(config, family.original_context);
  const std::string type = c.type();
  config.require(head_dim <= 65536, "a head of " + std::to_string(head_dim) + " dimensions is not supported");
  double share = 1;
  if (family.share)
    share = c.real("partial_rotary_factor", *family.share);
  else if (type != "default")  // where transformers does not read it
    config.require(c.either("partial_rotary_factor", 1) == 1, "partial_rotary_factor is not supported");
  config.require(share > 0 && share <= 1, "the share of a head's dimensions that turn by position, " +
                                              std::to_string(share) + ", should be above 0 and at most 1");
  const auto turning = int64_t(double(head_dim) * share);
  Rope rope{.theta = c.either("rope_theta", family.theta), .width = turning + turning % 2};
  config.require(rope.theta > 0, "rope_theta should be above 0, is " + std::to_string(rope.theta));
  config.require(turning > 0 && rope.width <= head_dim, "a head of " + std::to_string(head_dim) +
                                                            " dimensions of which " + std::to_string(turning) +
                                                            " turn by position is not supported");
  rope.frequencies = rope_frequencies(rope.theta, turning);
  if (type == "linear") {
    for (double& f : rope.frequencies) f /= c.factor();
  } else if (type == "llama3") {
    scale_llama3(rope, c);
  } else if (type == "yarn") {
    scale_yarn(rope, c);
  } else if (type == "longrope" || type == "su") {
    scale_longrope(rope, c);
  } else {  // dynamic changes nothing within max_position_embeddings, and the engine takes no more
    config.require(type == "default" || type == "dynamic", "rope_type '" + type + "' is not supported");
  }
  return rope;
}

}  // namespace dse
