// A model whose blocks' parts alternate by groups of rows is the same model: in what it computes, trains, loads and
// saves. Compared with the same one whose parts are adjacent, which the other tests compare with transformers.
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <unistd.h>

#include <fstream>
#include <map>

#include "base/philox.h"
#include "comm/local.h"
#include "golden_models.h"
#include "model/gradient_check.h"
#include "model/hf/adapter_files.h"
#include "model/hf/save.h"
#include "model/init.h"
#include "param/adamw.h"
#include "param/placement.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using at::Tensor;

constexpr int64_t kGroup = 4;
const AdapterSettings kAll{.rank = 4, .alpha = 8, .targets = {"all"}};

// In the shape that the checkpoint's parameter has.
Tensor dense(const ParamSpec& spec, const Tensor& part) { return part.reshape(spec.shape); }

void expect_same_parts(const Model& a, const Model& b) {
  const auto left = a.tensors(), right = b.tensors();
  ASSERT_EQ(left.size(), right.size());
  for (size_t i = 0; i < left.size(); ++i)
    EXPECT_TRUE(same_bits(dense(*left[i].spec, left[i].tensor), dense(*right[i].spec, right[i].tensor)))
        << place_of(*left[i].spec);
}

std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    files[entry.path().filename()] = std::string(std::istreambuf_iterator<char>(file), {});
  }
  return files;
}

void randomize_pairs(Model& model) {
  for (auto* unit : model.units()) {
    if (!unit->name().starts_with("adapter.")) continue;
    at::manual_seed(7);
    unit->flat().normal_(0, 0.2);
  }
}

class Interleaved : public testing::TestWithParam<std::string> {
 protected:
  ~Interleaved() override { fs::remove_all(folder); }
  fs::path made(const char* name) const {
    fs::create_directories(folder / name);
    return folder / name;
  }
  Model plain(at::ScalarType dtype = at::kFloat) const { return golden_model(GetParam(), kind, dtype); }
  Model mixed(at::ScalarType dtype = at::kFloat) const { return interleaved_model(GetParam(), kind, kGroup, dtype); }
  // What is asked of every row: log-probs and entropies, or values.
  std::vector<Tensor> outputs(const Model& model) const {
    const Tensor hidden = model.hidden(batch), rows = at::arange(batch.tokens.size(0), at::kLong);
    if (kind == ModelKind::value) return {hidden, model.values(hidden, rows)};
    const auto [logp, entropy] = model.log_prob(hidden, rows, batch.tokens.roll(-1), 0.9, true);
    return {hidden, logp, entropy};
  }
  void expect_same_outputs(const Model& a, const Model& b) const {
    const at::NoGradGuard no_grad;
    const auto left = outputs(a), right = outputs(b);
    for (size_t i = 0; i < left.size(); ++i) EXPECT_TRUE(same_bits(left[i], right[i])) << i;
  }

  const ModelKind kind = golden_kind(GetParam());
  const Batch batch = pack_all(random_sequences({9, 1, 14}, 97));
  const fs::path folder = fs::path(testing::TempDir()) / fmt::format("dse_interleave_{}", getpid());
};

TEST_P(Interleaved, ComputesTheSameBits) {
  Model a = plain(), b = mixed();
  expect_same_parts(a, b);
  expect_same_outputs(a, b);
  for (Model* model : {&a, &b}) model->add_adapter(kAll, 1), randomize_pairs(*model);
  expect_same_outputs(a, b);
}

// A draw is keyed by name and index, not by where a row lies.
TEST_P(Interleaved, IsDrawnAlike) {
  Model a = plain(), b = mixed();
  draw_weights(a, 0.5, 3), draw_weights(b, 0.5, 3);
  expect_same_parts(a, b);
}

// A linear's gradient by its input sums over the weight's rows, which lie in another order: each gradient within the
// rounding of such a sum, relative to its unit's norm. Weights' own sum over tokens alone.
TEST_P(Interleaved, HasTheSameGradients) {
  for (const auto& [dtype, tolerance] : {std::pair(at::kFloat, 1e-6), std::pair(at::kDouble, 1e-14)}) {
    Model a = plain(dtype), b = mixed(dtype);
    std::vector<std::map<std::string, Tensor>> gradients;
    std::map<std::string, double> norms;
    for (Model* model : {&a, &b}) {
      model->enable_training();
      const at::AutoGradMode grad(true);
      const auto out = outputs(*model);
      Tensor sum = out[1].sum();
      if (out.size() > 2) sum = sum + out[2].square().sum();
      torch::autograd::backward({sum}, {});
      auto& all = gradients.emplace_back();
      for (const auto* unit : model->units())
        read_placed(*unit, unit->grad(), [&](const std::string& place, const Tensor& rows) {
          all[place] = rows.clone();
          norms[place] = unit->grad().norm().item<double>();
        });
    }
    ASSERT_EQ(gradients[0].size(), gradients[1].size());
    for (const auto& [place, rows] : gradients[0])
      EXPECT_LE((rows - gradients[1].at(place)).norm().item<double>(), tolerance * norms.at(place)) << place;
  }
}

TEST_P(Interleaved, SavesTheSameBytesAndLoadsThem) {
  Model a = plain(), b = mixed();
  save_model(a, made("a"), golden(GetParam())), save_model(b, made("b"), golden(GetParam()));
  EXPECT_EQ(files_of(folder / "a"), files_of(folder / "b"));
  EXPECT_GE(files_of(folder / "a").size(), 3u);
  expect_same_parts(interleaved_model(folder / "b", kind, kGroup), b);
  expect_same_parts(golden_model(folder / "b", kind), a);
  // With an adapter merged in, and apart.
  for (Model* model : {&a, &b}) model->add_adapter(kAll, 1), randomize_pairs(*model);
  save_model(a, made("merged_a"), {}), save_model(b, made("merged_b"), {});
  EXPECT_EQ(files_of(folder / "merged_a"), files_of(folder / "merged_b"));
  EXPECT_NE(files_of(folder / "merged_a").at("model.safetensors"), files_of(folder / "a").at("model.safetensors"));
  save_adapter(a, made("adapter_a"), golden(GetParam()), {}),
      save_adapter(b, made("adapter_b"), golden(GetParam()), {});
  EXPECT_EQ(files_of(folder / "adapter_a"), files_of(folder / "adapter_b"));
}

// An adapter whose first pairs are taken out of the base: the base's rows are put together and apart again.
TEST_P(Interleaved, GivesItsInitialPairsAlike) {
  Model made_by = plain();
  made_by.add_adapter(kAll, 1), randomize_pairs(made_by);
  const fs::path adapter = made("adapter");
  save_adapter(made_by, adapter, golden(GetParam()), {});
  Json config = read_json(adapter / "adapter_config.json");
  config["init_lora_weights"] = "pissa";
  write_text(adapter / "adapter_config.json", config.dump());
  Model a = plain(), b = mixed();
  for (Model* model : {&a, &b}) AdapterFolder(adapter).load(*model);
  expect_same_parts(a, b);
  EXPECT_FALSE(same_bits(a.units()[1]->flat(), made_by.units()[1]->flat()));
  expect_same_outputs(a, b);
}

// Two steps of the same gradients, with decay: weights and moments move alike, in the coordinates of checkpoints.
TEST_P(Interleaved, IsTrainedAlike) {
  Model a = plain(), b = mixed();
  LocalCommunicator alone;
  std::vector<std::map<std::string, Tensor>> ends;
  for (Model* model : {&a, &b}) {
    model->enable_training();
    AdamW optimizer(built_kernels(), model->units(), {.weight_decay = 0.1, .grad_clip = 0});
    for (uint64_t step = 0; step < 2; ++step) {
      for (auto* unit : model->units())
        write_placed(*unit, unit->grad(), [&](const std::string& place, const Tensor& rows) {
          const Philox draws(step, Purpose::evaluate, name_hash(place));
          for (int64_t i = 0; i < rows.numel(); ++i)
            rows.mutable_data_ptr<float>()[i] = float(draws.normal(uint64_t(i)));
        });
      optimizer.step(1e-2, alone);
    }
    auto& end = ends.emplace_back();
    for (size_t u = 0; u < model->units().size(); ++u) {
      const auto keep = [&](const char* what, const Tensor& span) {
        read_placed(*model->units()[u], span,
                    [&](const std::string& place, const Tensor& rows) { end[what + place] = rows.clone(); });
      };
      keep("weights ", model->units()[u]->trained_flat());
      keep("first ", optimizer.moments()[u].mean()), keep("second ", optimizer.moments()[u].square());
    }
  }
  ASSERT_EQ(ends[0].size(), ends[1].size());
  for (const auto& [name, rows] : ends[0]) EXPECT_TRUE(same_bits(rows, ends[1].at(name))) << name;
  EXPECT_FALSE(same_bits(a.units()[1]->flat(), plain().units()[1]->flat()));
}

INSTANTIATE_TEST_SUITE_P(Golden, Interleaved, testing::ValuesIn(golden_names("causal_lm") + golden_names("reward")),
                         [](const auto& info) { return info.param; });

// By central differences, of fused and plain checkpoints, with biases and without (see compare_gradients).
TEST(InterleavedGradients, AreCentralDifferences) {
  for (const char* name : {"llama_mha", "gpt2", "gpt_neox", "phi3", "opt_plain"}) {
    Model model = interleaved_model(name, ModelKind::language, kGroup, at::kDouble);
    for (const auto& g : compare_gradients(model))
      EXPECT_LE(g.deviation(), 1e-6) << name << ", " << g.tensor << ": " << g.exact << ", " << g.numeric;
  }
}

// A bias that lies otherwise than its weight would be added to other columns.
TEST(InterleavedGraph, NeedsItsBiasesLaidOutAlike) {
  const Model model = golden_model("gpt2");
  ModelGraph graph = model.graph();
  for (auto& section : graph.sections)
    for (auto& block : section.blocks)
      if (block.parts.size() == 3 && !block.parts[0].is_bias()) block.interleave = kGroup;
  EXPECT_THROW(Model(graph, model.config(), ModelKind::language, built_kernels(), at::kFloat), InternalError);
}

}  // namespace
}  // namespace dsengine
