// `plugins verify` passes a sound algorithm in C and finds each fault that was put into a copy of it.
#include "plugin/verify.h"

#include "plugin/fixtures.h"
#include "plugin/instance.h"
#include "plugin/list.h"
#include "plugin/sample_batch.h"

namespace dsengine {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const PluginRegistry& no_plugins() {
  static const PluginRegistry registry({}, {}, {});
  return registry;
}

std::vector<std::string> failed(const Checks& checks) {
  std::vector<std::string> names;
  for (const auto& check : checks)
    if (!check.ok) names.push_back(check.name.substr(check.name.find(": ") + 2));
  return names;
}

TEST(Verify, ASoundAlgorithmInCPasses) {
  for (const char* name : {"nll", "short", "nll_rollout", "older_nll", "pair_rows", "raw_corrected"}) {
    const auto checks = verify(no_plugins(), fixture(name).string());
    EXPECT_TRUE(all_ok(checks)) << format_checks(checks);
    const bool has_notes = name == std::string_view("pair_rows") || name == std::string_view("raw_corrected");  // C++
    EXPECT_EQ(checks.size(), has_notes ? 9u : 8u) << format_checks(checks);
    EXPECT_THAT(format_checks(checks), AllOf(HasSubstr("loads"), HasSubstr("gradients")));
  }
}

TEST(Verify, FindsEachFault) {
  const auto faults = [](const char* name) { return failed(verify(no_plugins(), fixture(name).string())); };
  using Names = std::vector<std::string>;
  EXPECT_EQ(faults("wrong_needs"), Names{"create, needs"});
  EXPECT_EQ(faults("wrong_gradient"), Names{"gradients"});  // 1 % too large
  EXPECT_EQ(faults("wrong_mask"), Names{"loss"});
  EXPECT_THAT(faults("wrong_nan"), testing::Contains("loss"));
  EXPECT_THAT(faults("wrong_repeat"), testing::Contains("determinism"));
  EXPECT_EQ(faults("wrong_micro_batch"), Names{"micro-batches"});
  EXPECT_EQ(faults("wrong_groups"), Names{"micro-batches"});  // sound on whole groups, which the engine may cut
  EXPECT_THAT(faults("wrong_state"), testing::Contains("state"));
}

TEST(Verify, AFileThatCannotLoadIsAFailedCheck) {
  const auto checks = verify(no_plugins(), fixture("throws").string());
  ASSERT_EQ(checks.size(), 1u);
  EXPECT_FALSE(checks[0].ok);
  EXPECT_THAT(format_checks(checks), AllOf(HasSubstr("FAILED loads"), HasSubstr("C++ exception")));
}

TEST(Verify, ByNameAndWithHooks) {
  const PluginRegistry registry({}, {{fixture("whole"), ""}}, {});
  const VerifyHooks hooks{{DSE_DATASET, [](const Item& item, const OptionSet&) {
                             return Checks{{"hook", item.name == "empty", "called"}};
                           }}};
  const auto checks = verify(registry, "empty", hooks);
  EXPECT_TRUE(all_ok(checks)) << format_checks(checks);
  EXPECT_THAT(format_checks(checks), AllOf(HasSubstr("missing file: refused"), HasSubstr("dataset empty: hook")));
  EXPECT_THAT(error_of([&] { verify(registry, "emty"); }), HasSubstr("did you mean 'empty'?"));
}

// The losses that verify's own arithmetic rests on: -scale * logp where the mask is 1.
TEST(Instance, RunsTheCPluginOnAHandMadeBatch) {
  const PluginLibrary library(fixture("nll"));
  const Item& item = library.items()[0];
  AlgorithmInstance algorithm(item, OptionSet(item, {{"scale", {2.0, ""}}}));
  EXPECT_EQ(algorithm.needs().columns, uint32_t{DSE_COLUMN_LOGP});
  const int64_t offsets[] = {0, 1, 3}, prompt[] = {0, 1};
  const int32_t finish[] = {DSE_FINISH_RECORD, DSE_FINISH_RECORD}, token[] = {4, 5, 6};
  const float weight[] = {1, 1}, mask[] = {1, 0, 1}, logp[] = {-0.5f, -1, -2};
  float advantage[3] = {}, target[3] = {};
  double rows = 0;
  dse_batch batch{};
  batch.struct_size = sizeof batch;
  batch.rows = 2, batch.tokens = 3;
  batch.offsets = offsets, batch.prompt = prompt, batch.finish = finish, batch.token = token;
  batch.row_weight = weight, batch.mask = mask, batch.logp = logp;
  batch.advantage = advantage, batch.target = target;
  batch.context = &rows;
  batch.metric = [](void* context, const char*, double value, double) { *static_cast<double*>(context) = value; };
  double loss[3] = {};
  float d_logp[3] = {};
  dse_gradients gradients{sizeof gradients, 0, loss, d_logp, nullptr, nullptr};
  algorithm.prepare(batch);
  algorithm.loss(batch, gradients);
  EXPECT_EQ(rows, 2);
  EXPECT_THAT(loss, testing::ElementsAre(1.0, 0.0, 4.0));
  EXPECT_THAT(d_logp, testing::ElementsAre(-2.0f, 0.0f, -2.0f));
  EXPECT_EQ(algorithm.save().size(), 8u);
  EXPECT_THAT(error_of([&] { algorithm.load("short"); }),
              HasSubstr("algorithm 'nll' (libdse_nll.so): load: state of another size"));
}

TEST(SampleBatch, IsRaggedGroupedAndRepeatable) {
  dse_needs needs{};
  needs.struct_size = sizeof needs;
  needs.source = DSE_SOURCE_ROLLOUT;
  needs.columns = DSE_COLUMN_LOGP | DSE_COLUMN_SCORE;
  needs.group_size = 3;
  SampleBatch batch(needs, 5), again(needs, 5), other(needs, 6);
  const auto view = batch.view();
  EXPECT_EQ(view.rows % 3, 0);
  EXPECT_EQ(view.prompt[0], view.prompt[2]);
  EXPECT_NE(view.prompt[0], view.prompt[3]);
  EXPECT_EQ(view.value, nullptr);  // not asked for
  EXPECT_EQ(batch.column(DSE_COLUMN_LOGP), again.column(DSE_COLUMN_LOGP));
  EXPECT_NE(batch.column(DSE_COLUMN_LOGP), other.column(DSE_COLUMN_LOGP));
  auto part = batch.rows(1, 3);
  EXPECT_EQ(part.view().offsets[0], 0);
  EXPECT_EQ(part.token_count(), view.offsets[3] - view.offsets[1]);
  EXPECT_EQ(part.view().logp[0], view.logp[view.offsets[1]]);
  EXPECT_EQ(part.view().score[0], view.score[1]);
}

TEST(List, TablesOfItemsAndOptions) {
  const ScratchFolder folder;
  folder.copy("nll", "libdse_nll.so");
  folder.copy("fails", "libdse_fails.so");
  const PluginRegistry registry({folder.path()}, {}, {});
  EXPECT_THAT(list_plugins(registry),
              AllOf(HasSubstr("KIND       NAME  VERSION  FILE           SUMMARY\n"
                              "algorithm  nll   1.2      libdse_nll.so  imitation in plain C\n"),
                    HasSubstr("failed to load: plugin " + (folder.path() / "libdse_fails.so").string())));
  EXPECT_THAT(describe_items(registry, "nll"),
              AllOf(HasSubstr("algorithm nll\n"), HasSubstr(folder.path().string()),
                    HasSubstr("scale      real     1.5      0.0 … 10.0  weight of the loss\n"),
                    HasSubstr("reduction  string   sum      sum | mean  how losses join\n")));
}

}  // namespace
}  // namespace dsengine
