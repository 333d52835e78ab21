// The models of a stage: which are loaded and trained, when the reference is the base of the actor's adapter, and which
// folders they leave.
#include "rl/stage_models.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rl/config_checks.h"
#include "rl/tiny_rollouts.h"
#include "rl/tiny_run.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kLora = "lora = { rank = 2, targets = [\"q\", \"v\"] }\n";

struct StageModelsTest : testing::Test {
  // Of the first stage of `stages`, from `from` or drawn.
  StageModels models(const std::string& stages, const fs::path& from = {}) {
    config = tiny.config(stages);
    const fs::path actor = from.empty() ? tiny.model() : from;
    inputs = {.models = {{DSE_ACTOR, actor},
                         {DSE_REFERENCE, reference.empty() ? actor : reference},
                         {DSE_REWARD, actor},
                         {DSE_CRITIC, actor}},
              .rewards = {fs::path()},
              .tokenizer = tiny.model()};
    if (from.empty()) inputs.drawn = {actor};
    const auto& stage = config.stages[0];
    return {config, stage, inputs, needs_of(built_plugins(), stage), {built_plugins(), built_kernels(), stop}, text};
  }
  fs::path saved_model() const {
    save_model_to(drawn_model(tiny.model(), 4), tiny.path() / "saved", tiny.model());
    return tiny.path() / "saved";
  }
  std::vector<std::string> folders_of(const StageModels& models, const ExampleSet* pairs = nullptr) const {
    const fs::path folder = tiny.path() / "out";
    fs::create_directories(folder);
    models.save(StageDirectory(folder, "", Changes::refused), {}, pairs);
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

  const LogWatch log;
  TinyRun tiny;
  const TextModel text = TextModel::load(tiny.model(), tiny.model());
  const StopSignal stop;
  RunConfig config;
  StageInputs inputs;
  fs::path reference;
};

const std::string kRegexPpo =
    std::string(kPpoStage) + "reward = { plugin = \"match\", kind = \"regex\", pattern = \"e\" }\n";

TEST_F(StageModelsTest, AreThoseThatTheAlgorithmNeeds) {
  const StageModels sft = models(kSftStage);
  EXPECT_TRUE(sft.roles().actor->optimizer);
  EXPECT_FALSE(sft.roles().reference || sft.roles().critic || sft.roles().reward);
  EXPECT_TRUE(sft.rewards().empty());
  const StageModels ppo = models(kRegexPpo);
  EXPECT_TRUE(ppo.roles().actor->optimizer && ppo.roles().critic->optimizer);
  EXPECT_FALSE(ppo.roles().reference->optimizer) << "it is never trained";
  EXPECT_FALSE(ppo.roles().reward) << "reward plugins ask it, it is no role";
  EXPECT_EQ(ppo.roles().critic->model.kind(), ModelKind::value);
  EXPECT_THAT(ppo.rewards(), ElementsAre(nullptr)) << "the source wants none";
  EXPECT_FALSE(ppo.critic_text()) << "it has the actor's words";
  const StageModels reward = models(kRewardStage);
  EXPECT_TRUE(reward.roles().reward->optimizer);
  EXPECT_EQ(reward.roles().reward->model.kind(), ModelKind::value);
}

TEST_F(StageModelsTest, TheReferenceIsTheBaseOfAnAdapterThatTrainsNothingBesideIt) {
  const auto is_base = [&](const std::string& lora) {
    const StageModels ppo = models(kRegexPpo + lora);
    EXPECT_EQ(ppo.roles().reference_is_base, !ppo.roles().reference);
    return ppo.roles().reference_is_base;
  };
  EXPECT_FALSE(is_base(""));
  EXPECT_TRUE(is_base(kLora));
  EXPECT_FALSE(is_base("lora = { rank = 2, also_train = [\"norms\"] }\n"));
  reference = saved_model();
  EXPECT_FALSE(is_base(kLora)) << "it is another model";
}

TEST_F(StageModelsTest, EachTrainedRoleLeavesItsFolders) {
  EXPECT_THAT(folders_of(models(kSftStage)), ElementsAre("ema", "model"));
  fs::remove_all(tiny.path() / "out");
  EXPECT_THAT(folders_of(models(kRegexPpo)), ElementsAre("critic", "model"));
}

// An adapter names its base: one that was drawn, or trained in part, is in no folder.
TEST_F(StageModelsTest, AnAdapterIsLeftWhereItsBaseIsAFolder) {
  const std::string adapted = std::string(kRewardStage) + kLora;
  EXPECT_THAT(folders_of(models(adapted)), ElementsAre("model"));
  fs::remove_all(tiny.path() / "out");
  const fs::path base = saved_model();
  EXPECT_THAT(folders_of(models(adapted, base)), ElementsAre("adapter", "model"));
  EXPECT_EQ(read_json(tiny.path() / "out/adapter/adapter_config.json").at("base_model_name_or_path"), base.string());
  fs::remove_all(tiny.path() / "out");
  EXPECT_THAT(folders_of(models(std::string(kRewardStage) + "lora = { rank = 2, also_train = [\"norms\"] }\n", base)),
              ElementsAre("model"));
}

TEST_F(StageModelsTest, ARewardModelIsLeftWithTheScaleOfItsScores) {
  const StageModels reward = models(kRewardStage);
  DataSource from;
  from.path = tiny.path() / "pairs.jsonl";
  const auto pairs = ExampleSet::load({from}, built_plugins(), text, {}, DSE_SOURCE_PAIRS);
  folders_of(reward, &pairs);
  EXPECT_EQ(ScoreMoments::read(tiny.path() / "out/model").mean, moments_on(reward.roles().reward->model, pairs).mean);
  EXPECT_TRUE(fs::exists(tiny.path() / "out/model/score_moments.json"));
}

TEST_F(StageModelsTest, WeightsThatAreNoNumbersAreRefused) {
  const Model model = drawn_model(tiny.model(), 4);
  {
    at::NoGradGuard no_grad;
    model.units()[0]->flat()[0] = NAN;
  }
  save_model_to(model, tiny.path() / "broken", tiny.model());
  EXPECT_THAT(error_of([&] { models(kSftStage, tiny.path() / "broken"); }),
              AllOf(HasSubstr((tiny.path() / "broken").string()), HasSubstr("the weights hold NaN or infinity")));
}

}  // namespace
}  // namespace dsengine
