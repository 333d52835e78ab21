// Low-rank adapters beside the linears: they begin as no change, the base never moves, merged they are the same model.
#include "model/adapter.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/check.h"
#include "base/json.h"
#include "comm/local.h"
#include "golden_models.h"
#include "model/hf/adapter_files.h"
#include "model/hf/save.h"
#include "param/adamw.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

const AdapterSettings kAll{.rank = 4, .alpha = 8, .targets = {"all"}};

void randomize(Model& model) {
  at::NoGradGuard no_grad;
  at::manual_seed(7);
  for (auto* unit : model.units())
    if (unit->name().starts_with("adapter.")) at::Tensor(unit->flat()).normal_(0, 0.2);
}

struct Folder {
  fs::path path = fs::path(testing::TempDir()) / fmt::format("dse_adapter_{}", getpid());
  Folder() { fs::remove_all(path), fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
};

class Adapted : public testing::TestWithParam<const char*> {
 protected:
  const ModelKind kind =
      std::string(GetParam()).find("reward") != std::string::npos ? ModelKind::value : ModelKind::language;
  Model model = golden_model(GetParam(), kind);
  const Batch batch = pack_all(random_sequences({9, 1, 14}, 97));
};

TEST_P(Adapted, BeginsAsNoChangeAndLeavesTheBaseWhenItIsOff) {
  const at::Tensor before = model.hidden(batch);
  model.add_adapter(kAll, 1);
  EXPECT_TRUE(same_bits(model.hidden(batch), before));
  randomize(model);
  EXPECT_GT((model.hidden(batch) - before).abs().max().item<float>(), 0.01f);
  EXPECT_TRUE(same_bits(model.hidden(batch, false), before));
  EXPECT_TRUE(same_bits(model.clone(kind).hidden(batch), model.hidden(batch)));
}

// float32 sums in another order: 1e-5 of activations of magnitude 1.
TEST_P(Adapted, MergedAndBesideAreTheSameModel) {
  const Folder folder;
  model.add_adapter(kAll, 1);
  randomize(model);
  fs::create_directories(folder.path / "merged"), fs::create_directories(folder.path / "adapter");
  save_model(model, folder.path / "merged", golden(GetParam()));
  save_adapter(model, folder.path / "adapter", golden(GetParam()), golden(GetParam()));
  const Model merged = golden_model(folder.path / "merged", kind), loaded = golden_model(folder.path / "adapter", kind);
  EXPECT_EQ(merged.adapter(), nullptr);
  EXPECT_TRUE(same_bits(loaded.hidden(batch), model.hidden(batch)));
  EXPECT_LE((merged.hidden(batch) - model.hidden(batch)).abs().max().item<float>(), 1e-5f);
  if (kind == ModelKind::value) {
    const at::Tensor all = at::arange(batch.offsets.back(), at::kLong);
    EXPECT_TRUE(same_bits(loaded.values(loaded.hidden(batch), all), model.values(model.hidden(batch), all)));
  }
}

// Of every model any kinds of parameters are trained beside the pairs, and those alone.
TEST(Beside, AnyKindsOfEveryModel) {
  const std::vector<std::string> kinds{"norms", "biases", "embeddings"};
  for (const auto& name : golden_names("causal_lm"))
    for (unsigned which = 0; which < 8; ++which) {
      SCOPED_TRACE(fmt::format("{} {}", name, which));
      std::vector<std::string> beside;
      for (size_t k = 0; k < kinds.size(); ++k)
        if (which >> k & 1) beside.push_back(kinds[k]);
      Model model = golden_model(name);
      model.add_adapter(kAll, 1);
      model.enable_training(beside);
      for (const auto* unit : model.units())
        for (size_t b = 0; b < unit->blocks().size(); ++b) {
          if (unit->name().starts_with("adapter.")) continue;
          const ParamSpec& spec = unit->blocks()[b].parts[0];
          const bool table =
              spec.role == ParamRole::embedding || spec.role == ParamRole::positions || spec.role == ParamRole::head;
          const unsigned kind = spec.role == ParamRole::norm ? 0 : spec.is_bias() ? 1 : table ? 2 : 3;
          EXPECT_EQ(unit->grad_block(b).defined(), (which >> kind & 1) == 1) << spec.tensor;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Golden, Adapted,
                         testing::Values("llama_mha", "llama_gqa", "llama_tied", "opt_prenorm", "llama_reward", "gpt2",
                                         "gpt_neox", "phi3", "gemma2", "gpt2_reward", "gpt_neox_reward", "phi3_reward"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Adapter, ScaleIsAlphaOverRankOrItsRoot) {
  const Model model = golden_model("llama_gqa");
  EXPECT_DOUBLE_EQ(Adapter(model.graph(), {16, 8, false, {"q"}}, built_kernels(), at::kFloat).scale({16, 8}), 0.5);
  EXPECT_DOUBLE_EQ(Adapter(model.graph(), {16, 8, true, {"q"}}, built_kernels(), at::kFloat).scale({16, 8}), 2.0);
  EXPECT_THROW(Adapter(model.graph(), {4, 8, false, {"linear"}}, built_kernels(), at::kFloat),
               UserError);  // it has none
}

// phi3 keeps q, k and v in one tensor: one pair, as PEFT has it, or none.
TEST(Adapter, AFusedModuleHasOnePair) {
  const Model model = golden_model("phi3");
  const Adapter adapter(model.graph(), {2, 4, false, {"q", "k", "v"}}, built_kernels(), at::kFloat);
  ASSERT_EQ(adapter.modules().size(), 2u);  // of two layers
  EXPECT_EQ(adapter.modules()[1].first, "model.layers.1.self_attn.qkv_proj");
  try {
    Adapter(model.graph(), {2, 4, false, {"q", "v"}}, built_kernels(), at::kFloat);
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(),
                 "lora.targets: q and k are one tensor here, model.layers.0.self_attn.qkv_proj.weight: name both or "
                 "neither");
  }
}

// Trained by the optimizer with weight decay on: of the base only what was asked for moves.
TEST(Adapter, TheBaseIsLeftBitForBit) {
  Model model = golden_model("opt_prenorm");
  const Model before = golden_model("opt_prenorm");
  model.add_adapter(kAll, 1);
  model.enable_training({"norms"});
  std::vector<ParamStorage*> units;
  for (auto* unit : model.units())
    if (unit->trained()) units.push_back(unit);
  LocalCommunicator alone;
  AdamW optimizer(built_kernels(), units, {.weight_decay = 0.1});
  for (int step = 0; step < 3; ++step) {
    for (auto* unit : units)
      for (size_t b = 0; b < unit->blocks().size(); ++b)
        if (at::Tensor g = unit->grad_block(b); g.defined()) g.fill_(0.1);
    optimizer.step(1e-2, alone);
  }
  const auto now = model.tensors(), was = before.tensors();
  for (size_t i = 0; i < now.size(); ++i)
    EXPECT_EQ(same_bits(now[i].tensor, was[i].tensor), now[i].spec->tensor.find("norm") == std::string::npos)
        << now[i].spec->tensor;
}

// A directory's settings that would change the numbers are refused, naming them.
TEST(Adapter, UnknownSettingsAreRefused) {
  const Folder folder;
  Model model = golden_model("llama_gqa");
  model.add_adapter(kAll, 1);
  save_adapter(model, folder.path, golden("llama_gqa"), golden("llama_gqa"));
  const Json good = read_json(folder.path / "adapter_config.json");
  EXPECT_NO_THROW(golden_model(folder.path));
  for (const auto& [key, value] : std::vector<std::pair<std::string, Json>>{{"use_dora", true},
                                                                            {"peft_type", "PREFIX_TUNING"},
                                                                            {"rank_pattern", {{"q_proj", 8}}},
                                                                            {"rank_pattern", {{"q_proj", 4.5}}},
                                                                            {"rank_pattern", {{"(q_proj", 4}}},
                                                                            {"alpha_pattern", {{"q_proj", "8"}}},
                                                                            {"alpha_pattern", 8},
                                                                            {"r", 8},
                                                                            {"r", "four"},
                                                                            {"base_model_name_or_path", "nowhere"}}) {
    Json bad = good;
    bad[key] = value;
    write_text(folder.path / "adapter_config.json", bad.dump());
    EXPECT_THROW(golden_model(folder.path), UserError) << key;
  }
}

}  // namespace
}  // namespace dsengine
