// The models of tests/golden, loaded through the plugins built beside the tests.
//
//   Model model = golden_model("llama_gqa");
//   Model exact = golden_model("llama_gqa", ModelKind::language, at::kDouble);
#pragma once
#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "base/check.h"
#include "base/json.h"
#include "model/hf/architecture.h"
#include "model/hf/load.h"
#include "ops/built_kernels.h"

namespace dsengine {

inline std::filesystem::path golden(const std::string& name) { return folder_of(DSE_TEST_DIR, "golden") / name; }

// The directories of tests/golden with a golden.json of that kind ("causal_lm", "reward").
inline std::vector<std::string> golden_names(const std::string& kind) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder_of(DSE_TEST_DIR, "golden"))) {
    const auto file = entry.path() / "golden.json";
    if (std::filesystem::exists(file) && read_json(file).at("kind") == kind) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::vector<std::string> operator+(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline ModelKind golden_kind(const std::string& name) {
  return name.ends_with("_reward") ? ModelKind::value : ModelKind::language;
}

inline Model golden_model(const std::filesystem::path& directory, ModelKind kind = ModelKind::language,
                          at::ScalarType dtype = at::kFloat, const Kernels& kernels = built_kernels()) {
  return load_model(directory.is_absolute() ? directory : golden(directory), built_plugins(), kernels,
                    {.kind = kind, .dtype = dtype});
}

// The same model with the parts of its blocks alternating in groups of `rows`, where they have one number of rows that
// can be cut so.
inline Model interleaved_model(const std::filesystem::path& directory, ModelKind kind, int64_t rows,
                               at::ScalarType dtype = at::kFloat) {
  const auto from = directory.is_absolute() ? directory : golden(directory);
  const Json config = read_json(from / "config.json");
  ModelGraph graph = declare_architecture(config, from / "config.json", built_plugins());
  int64_t count = 0;
  for (auto& section : graph.sections)
    for (auto& block : section.blocks) {
      const auto same = [&](const ParamSpec& part) { return part.shape[0] == block.parts[0].shape[0]; };
      if (block.parts.size() < 2 || block.parts[0].shape[0] % rows != 0 || !std::ranges::all_of(block.parts, same))
        continue;
      block.interleave = rows, ++count;
    }
  DSE_CHECK(count > 0, "{} has no such block", directory.string());
  Model model(std::move(graph), config, kind, built_kernels(), dtype);
  load_weights(model, from, {.kind = kind});
  model.set_origin({from, from});
  return model;
}

// Ragged sequences of ordinary tokens, the same for the same seed.
inline std::vector<std::vector<int32_t>> random_sequences(const std::vector<int64_t>& lengths, int32_t vocabulary,
                                                          unsigned seed = 1) {
  std::mt19937 draws(seed);
  std::vector<std::vector<int32_t>> result;
  for (const auto n : lengths) {
    auto& sequence = result.emplace_back();
    for (int64_t i = 0; i < n; ++i) sequence.push_back(3 + int32_t(draws() % uint32_t(vocabulary - 3)));
  }
  return result;
}

inline Batch pack_all(const std::vector<std::vector<int32_t>>& sequences) {
  return pack(Device::host(), {sequences.begin(), sequences.end()});
}

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() && at::equal(a, b);
}

}  // namespace dsengine
