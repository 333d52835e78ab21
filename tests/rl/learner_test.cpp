// How rows are cut into minibatches.
#include "rl/learner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/check.h"
#include "comm/local.h"
#include "ops/built_kernels.h"
#include "plugin/fixtures.h"
#include "plugin/library.h"

namespace dsengine {
namespace {

Experience rows_of_prompts(const std::vector<int64_t>& prompts) {
  Experience e;
  for (const auto prompt : prompts) e.add_row({{5, 6, 7}, 1, {}}, prompt, Finish::eos, 1.0, std::vector<uint8_t>{1, 1});
  return e;
}

std::vector<std::vector<int64_t>> cut(const char* name, const Experience& e, int64_t size, int64_t epoch) {
  const Item& item = built_plugins().find(DSE_ALGORITHM, name);
  AlgorithmInstance algorithm(item, OptionSet(item, {}));
  Roles roles;
  Phases phases;
  LocalCommunicator alone;
  return Learner(algorithm, roles, {.mini_batch_size = size, .micro_batch_size = size}, phases, alone)
      .minibatches(e, 1, 2, epoch);
}

TEST(Minibatches, FirstEpochTakesTheRowsAsTheyAre) {
  const auto e = rows_of_prompts({0, 1, 2, 3, 4});
  EXPECT_EQ(cut("ppo", e, 2, 0), (std::vector<std::vector<int64_t>>{{0, 1}, {2, 3}, {4}}));
}

TEST(Minibatches, LaterEpochsAreShuffledAnew) {
  const auto e = rows_of_prompts(std::vector<int64_t>(40, 0));
  const auto one = cut("ppo", e, 8, 1), two = cut("ppo", e, 8, 2);
  EXPECT_EQ(one, cut("ppo", e, 8, 1));
  EXPECT_NE(one, two);
  std::set<int64_t> all;
  for (const auto& part : two) all.insert(part.begin(), part.end());
  EXPECT_EQ(all.size(), 40u);
}

// A loss of single rows on pairs: what counts is where the rows come from.
TEST(Minibatches, PairsStayTogetherWhateverTheLossIsOf) {
  const PluginLibrary library(fixture("pair_rows"));
  const Item& item = library.items()[0];
  AlgorithmInstance algorithm(item, OptionSet(item, {}));
  ASSERT_EQ(algorithm.needs().form, uint32_t{DSE_FORM_ROW});
  Roles roles;
  Phases phases;
  LocalCommunicator alone;
  std::vector<int64_t> pairs;
  for (int64_t p = 0; p < 20; ++p) pairs.insert(pairs.end(), 2, p);
  const Learner learner(algorithm, roles, {.mini_batch_size = 6, .micro_batch_size = 2}, phases, alone);
  for (const auto& part : learner.minibatches(rows_of_prompts(pairs), 1, 2, 1))
    for (size_t i = 0; i < part.size(); i += 2) {
      EXPECT_EQ(part[i] % 2, 0);
      EXPECT_EQ(part[i + 1], part[i] + 1);
    }
  for (const auto& [mini, micro] : {std::pair(5, 4), std::pair(6, 3)})
    EXPECT_THROW(Learner(algorithm, roles, {.mini_batch_size = mini, .micro_batch_size = micro}, phases, alone),
                 UserError);
}

TEST(Minibatches, GroupsAndPairsStayTogether) {
  std::vector<int64_t> prompts;
  for (int64_t p = 0; p < 12; ++p)
    for (int64_t i = 0; i < 2 + p % 3; ++i) prompts.push_back(p);
  const auto e = rows_of_prompts(prompts);
  for (const int64_t epoch : {0, 1, 2}) {
    std::set<int64_t> met;
    for (const auto& part : cut("grpo", e, 6, epoch)) {
      EXPECT_LE(part.size(), 6u);
      std::set<int64_t> here;
      for (const auto r : part) here.insert(prompts[size_t(r)]);
      for (const auto p : here) {
        EXPECT_TRUE(met.insert(p).second) << "prompt " << p << " is in two minibatches";
        EXPECT_EQ(std::count_if(part.begin(), part.end(), [&](int64_t r) { return prompts[size_t(r)] == p; }),
                  2 + p % 3);
      }
    }
    EXPECT_EQ(met.size(), 12u);
    for (const auto& part : cut("reward", e, 6, epoch))
      for (size_t i = 0; i < part.size(); i += 2) EXPECT_EQ(part[i + 1], part[i] + 1);
  }
  EXPECT_EQ(cut("grpo", rows_of_prompts({0, 0, 0, 0}), 2, 0).size(), 1u);  // a group larger than a minibatch
}

}  // namespace
}  // namespace dsengine
