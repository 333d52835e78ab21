// What a graphics card must show; each is skipped, and says so, where there is none. With the library's kernels and
// with none.
#include <gtest/gtest.h>

#include "cuda/thin_products.h"
#include "device/cuda.h"
#include "generate/scheduler.h"
#include "model/hf/load.h"
#include "model/other_device.h"
#include "ops/verify_kernel.h"
#include "rl/other_device.h"

namespace dsengine {
namespace {

// The card, opened before anything trains on the host: LibTorch counts devices once.
const Device* card() {
  static const std::unique_ptr<const Device> first(cuda_cards() > 0 ? new Device(open_device("cuda")) : nullptr);
  return first.get();
}

#define SKIP_WITHOUT_A_CARD() \
  if (!card()) GTEST_SKIP() << "NOT TESTED: this machine has no graphics card that can be used"

const Kernels& card_kernels() {
  static const Kernels kernels(built_plugins(), *card());
  return kernels;
}
const Kernels& card_reference() {
  static const PluginRegistry none({}, {}, {});
  static const Kernels kernels(none, *card());
  return kernels;
}

TEST(CardKernels, SayWhatTheReferenceSays) {
  SKIP_WITHOUT_A_CARD();
  int tried = 0;
  for (const Item* item : built_plugins().items(DSE_KERNEL)) {
    if (item->kernel().device != DSE_CUDA) continue;
    const auto checks = verify_kernel(*item);
    EXPECT_TRUE(all_ok(checks)) << item->name << "\n" << format_checks(checks);
    ++tried;
  }
  EXPECT_GE(tried, 40);
}

// Whether products of a few rows are the engine's own.
bool is_hopper() {
  const ops::LinearActivate whole(card_kernels(), at::kBFloat16, 64, 64, Activation::relu, false);
  return bool(whole);
}

TEST(CardKernels, MultiplyAFewRows) {
  SKIP_WITHOUT_A_CARD();
  expect_thin_products(card_kernels(), is_hopper());
  expect_thin_activations(card_kernels());
}

class CardModel : public testing::TestWithParam<std::string> {};

TEST_P(CardModel, IsTheReferences) {
  SKIP_WITHOUT_A_CARD();
  const std::string name = GetParam();
  const auto here = told_by(name, reference_kernels());
  for (const Kernels* there : {&card_reference(), &card_kernels()}) {
    SCOPED_TRACE(there == &card_kernels() ? "the library's kernels" : "the reference");
    const auto told = told_by(name, *there);
    ASSERT_EQ(here.size(), told.size());
    for (size_t i = 0; i < here.size(); ++i) expect_close(here[i], told[i], name + " " + std::to_string(i), 1e-4);
  }
}

TEST_P(CardModel, IsNearInBf16) {
  SKIP_WITHOUT_A_CARD();
  const std::string name = GetParam();
  const auto here = told_by(name, reference_kernels(), at::kBFloat16);
  const auto told = told_by(name, card_kernels(), at::kBFloat16);
  ASSERT_EQ(here.size(), told.size());
  for (size_t i = 0; i < here.size(); ++i) expect_close(here[i], told[i], name + " " + std::to_string(i), 1e-1);
}

TEST_P(CardModel, IsTrained) {
  SKIP_WITHOUT_A_CARD();
  const std::string name = GetParam();
  const Model here = trained_by(name, reference_kernels(), false);
  for (const bool offload : {false, true}) expect_trained_alike(name, here, trained_by(name, card_kernels(), offload));
}

INSTANTIATE_TEST_SUITE_P(Golden, CardModel, testing::ValuesIn(golden_names("causal_lm") + golden_names("reward")),
                         [](const auto& info) { return info.param; });

// Recorded steps, whose kernels begin while the last one ends, and which are read late, beside forwards made anew.
TEST(Card, AnswersTheSameFromRecordedSteps) {
  SKIP_WITHOUT_A_CARD();
  if (!is_hopper()) GTEST_SKIP() << "NOT TESTED: a row's bits depend on how many there are on this card";
  const Json config =
      Json::parse(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 4, "rms_norm_eps": 1e-5,
    "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 512, "rope_theta": 10000.0})");
  const Model model =
      create_model(config, "a config", built_plugins(), card_kernels(), {.seed = 3, .dtype = at::kBFloat16});
  std::vector<GenerationRequest> requests;
  for (const auto& p : random_sequences({9, 40, 3, 17, 100, 6, 33, 21}, 32000))
    requests.push_back({.prompt = p,
                        .max_new_tokens = 24 + 5 * int64_t(requests.size()),
                        .samples = 8,
                        .sampling = {.temperature = 0.9},
                        .seed = 5,
                        .row = 8 * requests.size()});
  for (const int64_t slots : {1, 8, 64}) {
    Scheduler anew(model, {.slots = slots}, false), recorded(model, {.slots = slots}, true);
    const auto a = generate(anew, requests), b = generate(recorded, requests);
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].tokens, b[i].tokens) << slots << " slots, " << i;
      EXPECT_EQ(a[i].logp, b[i].logp) << slots << " slots, " << i;
    }
  }
}

class CardRun : public testing::TestWithParam<std::vector<std::string>> {};

TEST_P(CardRun, IsTheReferencesRun) {
  SKIP_WITHOUT_A_CARD();
  auto sets = GetParam();
  sets.push_back("dtype=fp32");
  expect_alike(TinyRun(), card_kernels(), std::string(kSftStage) + kRewardStage + kPpoStage, sets);
}

INSTANTIATE_TEST_SUITE_P(Settings, CardRun, testing::ValuesIn(kSettings));

TEST(Card, ServesEveryAlgorithm) {
  SKIP_WITHOUT_A_CARD();
  expect_every_algorithm(card_kernels());
}

TEST(Card, ResumesToTheSameBits) {
  SKIP_WITHOUT_A_CARD();
  for (const char* type : {"fp32", "bf16"})
    expect_resumed_to_the_same_bits(card_kernels(), {std::string("dtype=") + type});
}

}  // namespace
}  // namespace dsengine
