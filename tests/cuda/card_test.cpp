// What a graphics card must show; each is skipped, and says so, where there is none. With the library's kernels and
// with none.
#include <gtest/gtest.h>

#include "cuda/thin_products.h"
#include "device/cuda.h"
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

TEST(CardKernels, MultiplyAFewRows) {
  SKIP_WITHOUT_A_CARD();
  expect_thin_products(card_kernels());
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
