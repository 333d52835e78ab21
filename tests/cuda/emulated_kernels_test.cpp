// The kernels for graphics cards, compiled for the host and run on an emulator of a card (emulator.h): what each
// computes is compared with the reference in float64, at ragged, odd and empty shapes.
#include <gtest/gtest.h>

#include "cuda/thin_products.h"
#include "generate/training_bits.h"
#include "model/hf/load.h"
#include "model/other_device.h"
#include "ops/verify_kernel.h"
#include "rl/other_device.h"

namespace dsengine {
namespace {

const PluginRegistry& emulated_plugins() {
  static const PluginRegistry registry({std::filesystem::path(DSE_BINARY_DIR) / "lib/emulated"}, {}, {});
  return registry;
}

const Kernels& emulated_kernels() {
  static const Kernels kernels(emulated_plugins(), Device::host());
  return kernels;
}

TEST(EmulatedKernels, SayWhatTheReferenceSays) {
  const auto items = emulated_plugins().items(DSE_KERNEL);
  EXPECT_GE(items.size(), 40u);
  for (const Item* item : items) {
    const auto checks = verify_kernel(*item);
    EXPECT_TRUE(all_ok(checks)) << item->name << "\n" << format_checks(checks);
  }
}

TEST(EmulatedKernels, MultiplyAFewRows) {
  expect_thin_products(emulated_kernels(), true);
  expect_thin_activations(emulated_kernels());
}

// Layers of a few kernels (heads of 64, activations in the products), from the cache and from recorded steps, beside
// the reference's: an answer's tokens may differ where two are nearly as likely, its first log-probabilities by
// rounding.
TEST(EmulatedKernels, GenerateWithWholeLayers) {
  const Json llama = Json::parse(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "vocab_size": 200, "hidden_size": 128, "intermediate_size": 88, "num_hidden_layers": 2, "rms_norm_eps": 1e-5,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 256,
    "initializer_range": 0.1, "rope_theta": 10000.0, "tie_word_embeddings": true})");
  const Json opt =
      Json::parse(R"({"architectures": ["OPTForCausalLM"], "model_type": "opt", "activation_function": "relu",
    "do_layer_norm_before": true, "vocab_size": 200, "hidden_size": 128, "word_embed_proj_dim": 128, "ffn_dim": 256,
    "num_hidden_layers": 2, "num_attention_heads": 2, "init_std": 0.1, "max_position_embeddings": 256,
    "tie_word_embeddings": true})");
  std::vector<GenerationRequest> requests;
  for (const auto& p : random_sequences({9, 40, 3, 17, 70}, 200))
    requests.push_back({.prompt = p,
                        .max_new_tokens = 4 + 3 * int64_t(requests.size()),
                        .samples = 2,
                        .sampling = {.temperature = 0.9},
                        .seed = 5,
                        .row = 2 * requests.size()});
  for (const Json* config : {&llama, &opt}) {
    const auto answers = [&](const Kernels& kernels, bool record, int64_t slots) {
      const Model model =
          create_model(*config, "a config", built_plugins(), kernels, {.seed = 3, .dtype = at::kBFloat16});
      Scheduler scheduler(model, {.slots = slots}, record);
      return generate(scheduler, requests);
    };
    const auto expected = answers(reference_kernels(), false, 64), anew = answers(emulated_kernels(), false, 64);
    for (size_t i = 0; i < expected.size(); ++i)
      for (size_t t = 0; t < expected[i].tokens.size() && expected[i].tokens[t] == anew[i].tokens[t]; ++t)
        EXPECT_NEAR(expected[i].logp[t], anew[i].logp[t], 0.1) << i << " " << t;
    for (const int64_t slots : {3, 64}) {  // the same prompts are read together: of how many rows their bits may depend
      const auto plain = answers(emulated_kernels(), false, slots), recorded = answers(emulated_kernels(), true, slots);
      for (size_t i = 0; i < plain.size(); ++i) {
        EXPECT_EQ(recorded[i].tokens, plain[i].tokens) << slots << " slots, " << i;
        EXPECT_EQ(recorded[i].logp, plain[i].logp) << slots << " slots, " << i;
      }
    }
  }
}

// Together, bound to models: the same values and gradients; in bfloat16 up to its rounding.
TEST(EmulatedKernels, CarryEveryModel) {
  for (const std::string& name : golden_names("causal_lm") + golden_names("reward"))
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const auto here = told_by(name, reference_kernels(), type), emulated = told_by(name, emulated_kernels(), type);
      ASSERT_EQ(here.size(), emulated.size());
      for (size_t i = 0; i < here.size(); ++i)
        expect_close(here[i], emulated[i], name + " " + std::to_string(i), type == at::kFloat ? 1e-4 : 1e-1);
    }
}

// And to stages, with generation from a cache.
TEST(EmulatedKernels, CarryARun) {
  const std::string stages = std::string(kSftStage) + kRewardStage + kPpoStage;
  expect_alike(TinyRun(), emulated_kernels(), stages, {"max_steps=2"});
  const TinyRun tiny;
  const auto narrow = run(tiny, "narrow", emulated_kernels(), stages, {"max_steps=2", "dtype=bf16"});
  for (const Json& step : lines_of(narrow / "ppo" / "metrics.jsonl"))
    EXPECT_LT(step.at("rollout_logp_difference_mean").get<double>(), 0.005);
}

// rollout.exact: training gives a token the very log-probability that generation told, by other kernels than those that
// would be taken.
TEST(EmulatedKernels, GenerateExactly) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const auto exact = golden_model("llama_gqa", ModelKind::language, type, emulated_kernels().exact());
    ASSERT_TRUE(exact.exact_rollouts());
    EXPECT_FALSE(golden_model("llama_gqa", ModelKind::language, type, emulated_kernels()).exact_rollouts());
    std::vector<GenerationRequest> requests;
    for (const auto& p : random_sequences({1, 17, 3, 30, 5}, int32_t(exact.graph().vocabulary)))
      requests.push_back({.prompt = p,
                          .max_new_tokens = 9,
                          .samples = 3,
                          .sampling = {.temperature = 0.7},
                          .seed = 5,
                          .row = 3 * requests.size()});
    for (const bool record : {false, true}) {
      Scheduler scheduler(exact, {.slots = 5, .prefill_tokens = 12}, record);
      const auto answers = generate(scheduler, requests);
      for (const size_t together : {1, 15}) expect_training_bits(exact, requests, answers, together);
    }
  }
}

}  // namespace
}  // namespace dsengine
