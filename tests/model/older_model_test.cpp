// A model library built against the headers of minor version 1, which are kept in tests/abi, goes on working.
#include <gtest/gtest.h>

#include "golden_models.h"

namespace dsengine {
namespace {

TEST(OlderModel, OfMinorOneRuns) {
  const PluginRegistry registry({}, {{std::string(DSE_BINARY_DIR) + "/tests/abi/libdse_older_model.so", ""}}, {});
  const Json config{
      {"architectures", {"OlderForCausalLM"}}, {"vocab_size", 7}, {"hidden_size", 4}, {"initializer_range", 1.0}};
  const Model model = create_model(config, "config.json", registry, built_kernels(), {.seed = 1});
  EXPECT_EQ(registry.find_model("OlderForCausalLM").abi_minor, 1u);
  const at::Tensor hidden = model.hidden(pack_all({{1, 2, 3}, {4}}));
  // A norm of weight 1: every row's mean square is 1.
  EXPECT_TRUE(at::allclose(hidden.square().mean(1), at::ones({4}), 1e-3, 1e-3));
  EXPECT_EQ(model.logits(hidden).sizes(), (at::IntArrayRef{4, 7}));
}

}  // namespace
}  // namespace dsengine
