// Drawing tokens: by the distribution that the logits are of, the likeliest where it is asked for, and with the
// log-probability of what was drawn.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "built_kernels.h"
#include "ops/ops.h"

namespace dsengine {
namespace {

using at::Tensor;

class Draw : public testing::TestWithParam<bool> {
 protected:
  const Kernels& kernels = GetParam() ? built_kernels() : reference_kernels();
};

// The uniform draws (i + 1/2) / n give a token of probability p n p times, to one more or less: nothing is random here.
TEST_P(Draw, EachTokenAsOftenAsItsProbabilitySays) {
  at::manual_seed(11);
  const int64_t n = 20000;
  for (const int64_t vocabulary : {5, 256, 700}) {  // a tile and several
    const ops::LogProb head(kernels, at::kFloat, 0, vocabulary, 0);
    for (const float temperature : {1.0f, 0.4f}) {
      const Tensor row = at::randn({1, vocabulary}) * 3;
      const Tensor draws = (at::arange(n, at::kDouble) + 0.5) / n;
      const auto r = head.draw(row.repeat({n, 1}), at::full({n}, temperature), draws);
      const Tensor p = at::softmax(row.to(at::kDouble) / temperature, 1)[0];
      const Tensor counts = at::bincount(r.tokens, {}, vocabulary);
      EXPECT_LE((counts - p * n).abs().max().item<double>(), 1.01) << vocabulary << " at " << temperature;
      EXPECT_TRUE(at::equal(r.tokens, std::get<0>(r.tokens.sort()))) << "the draws ascend, and so do ids";
      const Tensor logp = r.sums.target_logit - r.sums.lse;
      EXPECT_LE((logp.to(at::kDouble) - p.log().index_select(0, r.tokens)).abs().max().item<double>(), 2e-5);
    }
  }
}

TEST_P(Draw, TheLikeliestIsTheFirstAmongEquals) {
  const int64_t vocabulary = 600;
  const ops::LogProb head(kernels, at::kFloat, 0, vocabulary, 0);
  Tensor logits = at::zeros({4, vocabulary});
  logits[0][3] = 2, logits[0][4] = 2, logits[0][500] = 2;
  logits[1][599] = 1e-6;
  logits[2].fill_(-80), logits[2][300] = -79.5, logits[2][301] = -79.5;
  const auto r = head.draw(logits, at::full({4}, 1.0f), at::full({4}, -1.0, at::kDouble));
  EXPECT_TRUE(at::equal(r.tokens, at::tensor({3, 599, 300, 0}, at::kLong))) << r.tokens;
}

// A draw at the very end falls on the last token that weighs anything, never on one that weighs nothing.
TEST_P(Draw, NeverFallsOnWhatHasNoProbability) {
  const int64_t vocabulary = 600;
  const ops::LogProb head(kernels, at::kFloat, 0, vocabulary, 0);
  Tensor logits = at::full({1, vocabulary}, -1000.0f);
  logits[0][5] = 0, logits[0][299] = 0;
  const Tensor draws = at::tensor({0.0, 0.25, 0.4999, 0.5001, 0.75, 1 - 1e-16}, at::kDouble);
  const auto r = head.draw(logits.repeat({6, 1}), at::full({6}, 1.0f), draws);
  EXPECT_TRUE(at::equal(r.tokens, at::tensor({5, 5, 5, 299, 299, 299}, at::kLong))) << r.tokens;
}

// What was drawn has the log-probability that a forward tells of it, bit for bit.
TEST_P(Draw, SumsAreTheForwards) {
  at::manual_seed(12);
  const ops::LogProb head(kernels, at::kFloat, 0, 700, 0);
  const Tensor logits = at::randn({9, 700}) * 4, temperatures = at::linspace(0.3, 1.5, 9);
  const auto r = head.draw(logits, temperatures, at::rand({9}, at::kDouble));
  const auto again = head.sums(logits, temperatures, r.tokens, false);
  EXPECT_TRUE(at::equal(r.sums.lse, again.lse) && at::equal(r.sums.target_logit, again.target_logit));
}

INSTANTIATE_TEST_SUITE_P(With, Draw, testing::Bool(),
                         [](const auto& info) { return info.param ? "Kernels" : "TheReference"; });

}  // namespace
}  // namespace dsengine
