// What transformers computes from the directories of tests/golden: log-probs and rewards, of all prompts as one ragged
// batch and of each alone.
#include <gtest/gtest.h>

#include "golden_models.h"

namespace dsengine {
namespace {

class GoldenValues : public testing::TestWithParam<std::string> {};

// One number a token: its log-prob, or the reward read there.
at::Tensor values_of(const Model& model, const Packed& batch) {
  const at::Tensor hidden = model.hidden(batch), rows = at::arange(batch.tokens.size(0), at::kLong);
  if (model.kind() == ModelKind::value) return model.values(hidden, rows);
  return model.log_prob(hidden, rows, batch.tokens.roll(-1), 1.0, false).logp;  // a sequence's last row is not read
}

// 1e-4 is the parity asked of float32; the golden values themselves are within 2e-5 of float64 (make_models.py).
TEST_P(GoldenValues, AreTransformersInOneBatchAndAlone) {
  const at::NoGradGuard no_grad;
  const Model model = golden_model(GetParam(), golden_kind(GetParam()));
  const Json cases = read_json(golden(GetParam()) / "golden.json").at("cases");
  std::vector<std::vector<int32_t>> prompts;
  for (const auto& c : cases) prompts.push_back(c.at("input_ids"));
  const Packed batch = pack_all(prompts);
  const at::Tensor together = values_of(model, batch);
  for (size_t b = 0; b < prompts.size(); ++b) {
    const int64_t n = int64_t(prompts[b].size());
    const at::Tensor alone = values_of(model, pack({prompts[b]}));
    const bool reward = model.kind() == ModelKind::value;
    const auto expected = reward ? std::vector<double>{cases[b].at("reward").get<double>()}
                                 : cases[b].at("logprobs").get<std::vector<double>>();
    const int64_t first = reward ? n - 1 : 0;
    const at::Tensor part = together.narrow(0, batch.offsets[b], n);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(part[first + int64_t(i)].item<double>(), expected[i], 1e-4) << "prompt " << b << ", token " << i;
      EXPECT_NEAR(alone[first + int64_t(i)].item<double>(), expected[i], 1e-4) << "prompt " << b << ", token " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, GoldenValues, testing::ValuesIn(golden_names("causal_lm") + golden_names("reward")),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace dsengine
