// What transformers computes from the directories of tests/golden: log-probs and rewards, of all prompts as one ragged
// batch and of each alone, by the kernels that the engine loads and by its reference alone.
#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "base/check.h"
#include "golden_models.h"
#include "model/autograd/autograd.h"

namespace dsengine {
namespace {

class GoldenValues : public testing::TestWithParam<std::string> {
 protected:
  void compare(const Model& model);
};

// One number a token: its log-prob, or the reward read there.
at::Tensor values_of(const Model& model, const Batch& batch) {
  const at::Tensor hidden = model.hidden(batch), rows = at::arange(batch.tokens.size(0), at::kLong);
  if (model.kind() == ModelKind::value) return model.values(hidden, rows);
  return model.log_prob(hidden, rows, batch.tokens.roll(-1), 1.0, false).logp;  // a sequence's last row is not read
}

// 1e-4 is the parity asked of float32; the golden values themselves are within 2e-5 of float64 (make_models.py).
TEST_P(GoldenValues, AreTransformersInOneBatchAndAlone) {
  const at::NoGradGuard no_grad;
  for (const Kernels* kernels : {&built_kernels(), &reference_kernels()})
    compare(golden_model(GetParam(), golden_kind(GetParam()), at::kFloat, *kernels));
}

void GoldenValues::compare(const Model& model) {
  const Json cases = read_json(golden(GetParam()) / "golden.json").at("cases");
  std::vector<std::vector<int32_t>> prompts;
  for (const auto& c : cases) prompts.push_back(c.at("input_ids"));
  const Batch batch = pack_all(prompts);
  const at::Tensor together = values_of(model, batch);
  for (size_t b = 0; b < prompts.size(); ++b) {
    const int64_t n = int64_t(prompts[b].size());
    const at::Tensor alone = values_of(model, pack(Device::host(), {prompts[b]}));
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

// What no plugin serves, and what a plugin's family has but its declaration does not express, is one line that says so.
TEST(ModelConfig, SaysWhatIsNotServed) {
  const auto error_of = [](const char* name, const std::function<void(Json&)>& change) {
    Json config = read_json(golden(name) / "config.json");
    change(config);
    try {
      create_model(config, "config.json", built_plugins(), built_kernels(), {});
    } catch (const UserError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  const auto set = [](const char* path, const Json& value) {
    return [path, value](Json& config) { config[Json::json_pointer(path)] = value; };
  };
  using testing::HasSubstr;
  EXPECT_THAT(error_of("llama_gqa", set("/architectures/0", "LlamoForCausalLM")), HasSubstr("'LlamoForCausalLM'"));
  EXPECT_THAT(error_of("llama_gqa", set("/rope_parameters/rope_type", "xpos")), HasSubstr("'xpos' is not supported"));
  EXPECT_THAT(error_of("llama_longrope", set("/rope_parameters/long_factor", Json{1.0, 2.0})),
              HasSubstr("long_factor should have 4 numbers"));
  EXPECT_THAT(error_of("llama_gqa", set("/hidden_act", "quick_gelu")), HasSubstr("'quick_gelu' is not supported"));
  EXPECT_THAT(error_of("gpt2", set("/add_cross_attention", true)), HasSubstr("add_cross_attention is not supported"));
  EXPECT_THAT(error_of("qwen2", set("/is_causal", false)), HasSubstr("'is_causal' = false"));
  EXPECT_THAT(error_of("phi3_odd", set("/rope_parameters/partial_rotary_factor", 0.1)),
              HasSubstr("0 turn by position"));
  EXPECT_THAT(error_of("llama_linear", set("/rope_scaling/partial_rotary_factor", 0.5)),
              HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(error_of("gemma2", set("/use_bidirectional_attention", true)), HasSubstr("is not supported"));
}

// Dynamic positions are the plain ones within max_position_embeddings; beyond, transformers' cached and full forwards
// differ, and nothing is computed.
TEST(ModelConfig, DynamicPositionsEndAtTheModelsLength) {
  const at::NoGradGuard no_grad;
  const Model model = golden_model("llama_dynamic");
  EXPECT_NO_THROW(model.hidden(pack_all(random_sequences({256}, 97))));
  EXPECT_THROW(model.hidden(pack_all(random_sequences({257}, 97))), UserError);
}

// Of sequences of more than 100 tokens the positions turn by the second table, forward and backward; in one batch with
// shorter ones.
TEST(LongRope, HasTheGradientOfWhatItComputes) {
  const Model model = golden_model("phi3_longrope");
  const RopeSpec& rope = model.graph().attentions()[0]->rope;
  const auto options = at::TensorOptions().dtype(at::kDouble);
  at::manual_seed(11);
  const int64_t heads = 3, width = 2 * int64_t(rope.frequencies.size()) + 2;
  const at::Tensor positions = at::tensor({int64_t{7}, int64_t{7}}), lengths = at::tensor({int64_t{100}, int64_t{101}});
  const at::Tensor direction = at::randn({2, heads, width}, options), x = at::randn({2, heads, width}, options);
  const ops::Rope op(built_kernels(), at::kDouble, heads, 2, width, rope);
  at::Tensor leaf = x.clone().requires_grad_(true);
  {
    const at::AutoGradMode grad(true);
    torch::autograd::backward({(autograd::rope(op, leaf, positions, lengths) * direction).sum()}, {});
  }
  const at::NoGradGuard no_grad;
  const at::Tensor turned = op.forward(x, positions, lengths);
  // Linear and a rotation: <turn(x), d> = <x, gradient>; the rows, alike but for the length, turn otherwise.
  EXPECT_NEAR((turned * direction).sum().item<double>(), (x * leaf.grad()).sum().item<double>(), 1e-12);
  const at::Tensor same = op.forward(at::ones({2, heads, width}, options), positions, lengths);
  EXPECT_GT((same[0] - same[1]).abs().max().item<double>(), 0.1);
}

}  // namespace
}  // namespace dsengine
