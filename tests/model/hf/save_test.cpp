// A directory that is loaded and saved holds the same tensors, under both kinds of head. The saved directories stay
// in <build>/tests/saved, where transformers reads them (tests/golden/check_saved.py).
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include "base/check.h"
#include "base/json.h"
#include "files/weights.h"
#include "model/golden_models.h"
#include "model/hf/save.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

class Saved : public testing::TestWithParam<std::string> {};

TEST_P(Saved, DirectoryHoldsTheSameTensors) {
  const ModelKind kind = golden_kind(GetParam());
  const fs::path directory = fs::path(DSE_BINARY_DIR) / "tests/saved" / GetParam();
  fs::remove_all(directory);
  fs::create_directories(directory);
  const Model model = golden_model(GetParam(), kind);
  save_model(model, directory, golden(GetParam()));
  const Model again = golden_model(directory, kind);
  const auto before = model.tensors(), after = again.tensors();
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i)
    EXPECT_TRUE(same_bits(before[i].tensor, after[i].tensor)) << before[i].spec->tensor;
  EXPECT_TRUE(fs::exists(directory / "generation_config.json"));
  EXPECT_EQ(read_json(directory / "config.json").at("architectures"),
            read_json(golden(GetParam()) / "config.json").at("architectures"));
}

INSTANTIATE_TEST_SUITE_P(Golden, Saved,
                         testing::ValuesIn(golden_names("causal_lm") + golden_names("reward") +
                                           std::vector<std::string>{"llama_gqa_sharded"}),
                         [](const auto& info) { return info.param; });

// What a checkpoint of a tied model may hold: the embedding, the head, or both alike. Where they differ, transformers 4
// took the embedding and transformers 5 takes both: nothing is guessed.
TEST(LoadModel, ATiedHeadMayBeInTheWeights) {
  const auto directory = fs::path(testing::TempDir()) / fmt::format("dse_tied_{}", getpid());
  const std::string embedding = "model.embed_tokens.weight", head = "lm_head.weight";
  const auto source = WeightDirectory::open(golden("llama_tied"));
  const auto error_of = [&](bool has_embedding, bool has_head, float change) -> std::string {
    fs::remove_all(directory);
    fs::create_directories(directory);
    fs::copy(golden("llama_tied") / "config.json", directory / "config.json");
    SavePlan plan;
    for (const auto& name : source.names())
      if (name != embedding || has_embedding) plan.tensors.push_back({name, Dtype::F32, source.at(name).shape});
    if (has_head) plan.tensors.push_back({head, Dtype::F32, source.at(embedding).shape});
    WeightWriter writer(directory, plan);
    for (const auto& tensor : plan.tensors) {
      const std::string& from = tensor.name == head ? embedding : tensor.name;
      std::vector<float> values(source.at(from).elements());
      source.read_f32(from, values);
      if (tensor.name == head) values.back() += change;
      writer.write(tensor.name, values);
    }
    writer.close();
    const Batch batch = pack_all(random_sequences({9}, 97));
    try {
      const Model model = golden_model(directory), whole = golden_model("llama_tied");
      EXPECT_TRUE(same_bits(model.hidden(batch), whole.hidden(batch)));
    } catch (const UserError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error_of(true, false, 0), "");
  EXPECT_EQ(error_of(true, true, 0), "");
  EXPECT_EQ(error_of(false, true, 0), "");
  EXPECT_THAT(error_of(true, true, 0.5), testing::HasSubstr("ties lm_head.weight to model.embed_tokens.weight"));
  EXPECT_THAT(error_of(false, false, 0), testing::HasSubstr("missing from the weights: model.embed_tokens.weight"));
  fs::remove_all(directory);
}

}  // namespace
}  // namespace dsengine
