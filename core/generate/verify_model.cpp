#include "generate/verify_model.h"

#include <ATen/ATen.h>
#include <unistd.h>

#include <cmath>

#include "base/check.h"
#include "base/philox.h"
#include "generate/scheduler.h"
#include "model/gradient_check.h"
#include "model/hf/load.h"
#include "model/hf/save.h"
#include "ops/verify_kernel.h"

namespace dsengine {

using at::Tensor;

namespace {

namespace fs = std::filesystem;

constexpr double kGradientTolerance = 1e-6, kLogProbTolerance = 1e-5;

std::string check_gradients(Model model) {
  double worst = 0;
  const auto all = compare_gradients(model);
  for (const auto& g : all) {
    DSE_CHECK_USER(g.deviation() <= kGradientTolerance,
                   "the gradient of {} is {} along a direction, central differences give {}", g.tensor, g.exact,
                   g.numeric);
    worst = std::max(worst, g.deviation());
  }
  return fmt::format("of {} tensors within {:.1e} of central differences", all.size(), worst);
}

std::string check_generation(const Model& model) {
  const auto prompts = made_up_sequences({1, 7, 3, 12, 2, 5}, model.graph().vocabulary);
  std::vector<GenerationRequest> requests;
  for (const auto& p : prompts)
    requests.push_back({.prompt = p, .max_new_tokens = 16, .seed = 1, .row = requests.size()});
  Scheduler together(model, {.slots = 6}), one(model, {.slots = 1});
  const auto answers = generate(together, requests), alone = generate(one, requests);
  double worst = 0;
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < answers.size(); ++i) {
    DSE_CHECK_USER(answers[i].tokens == alone[i].tokens, "prompt {} is answered otherwise in a batch than alone", i);
    std::vector<int32_t> whole = prompts[i];
    whole.insert(whole.end(), answers[i].tokens.begin(), answers[i].tokens.end());
    const Batch batch = pack(model.device(), {whole});
    const int64_t first = int64_t(prompts[i].size()), n = int64_t(answers[i].tokens.size());
    const Tensor logp = model
                            .log_prob(model.hidden(batch), at::arange(first - 1, first + n - 1, at::kLong),
                                      batch.tokens.narrow(0, first, n), 1.0, false)
                            .logp;
    for (int64_t t = 0; t < n; ++t)
      worst = std::max(worst, std::abs(double(answers[i].logp[size_t(t)]) - logp[t].item<double>()));
  }
  DSE_CHECK_USER(worst <= kLogProbTolerance, "log-probs of cached generation and the training forward differ by {}",
                 worst);
  return fmt::format("batched, alone and the training forward agree within {:.1e}", worst);
}

std::string check_saving(const Model& model, const PluginRegistry& registry, const Kernels& kernels) {
  std::string folder = (fs::temp_directory_path() / "dsengine_verify_XXXXXX").string();
  DSE_CHECK_USER(mkdtemp(folder.data()), "cannot make a folder in {}", fs::temp_directory_path().string());
  const struct Remove {
    fs::path path;
    ~Remove() { fs::remove_all(path); }
  } remove{folder};
  save_model(model, folder, {});
  const Model loaded = load_model(folder, registry, kernels, {.kind = ModelKind::language});
  const auto before = model.tensors(), after = loaded.tensors();
  for (size_t i = 0; i < before.size(); ++i)
    DSE_CHECK_USER(at::equal(before[i].tensor, after[i].tensor), "{} comes back changed from a saved directory",
                   before[i].spec->tensor);
  return fmt::format("{} tensors come back bit for bit", before.size());
}

Checks verify_model(const Item& item, const Json& given) {
  static const Kernels reference;
  const PluginRegistry registry({}, {{item.file, ""}}, {});  // this file's models and no others
  Checks checks;
  for (const auto& architecture : item.architectures()) {
    const Json config = given.is_null() ? general_config(architecture) : given;
    const auto make = [&](at::ScalarType dtype) {
      return create_model(config, "verify's config.json", registry, reference,
                          {.kind = ModelKind::language, .seed = 5, .dtype = dtype});
    };
    const auto run = [&](const char* what, const std::function<std::string()>& body) {
      checks.push_back(run_check(architecture + " " + what, body));
      return checks.back().ok;
    };
    if (!run("declaration", [&] {
          const Model model = make(at::kFloat);
          return fmt::format("{} layers, {} parameters", model.graph().layers, model.parameter_count());
        }))
      continue;
    run("gradients", [&] { return check_gradients(make(at::kDouble)); });
    run("generation", [&] { return check_generation(make(at::kFloat)); });
    run("save and load", [&] { return check_saving(make(at::kFloat), registry, reference); });
  }
  return checks;
}

}  // namespace

Json general_config(const std::string& architecture) {
  return {{"architectures", {architecture}},
          {"vocab_size", 61},
          {"hidden_size", 24},
          {"word_embed_proj_dim", 24},
          {"n_embd", 24},
          {"num_hidden_layers", 2},
          {"n_layer", 2},
          {"num_attention_heads", 4},
          {"n_head", 4},
          {"num_key_value_heads", 2},
          {"intermediate_size", 40},
          {"ffn_dim", 40},
          {"n_inner", 40},
          {"n_positions", 64},
          {"max_position_embeddings", 64},
          {"initializer_range", 0.3},
          {"rms_norm_eps", 1e-6},
          {"layer_norm_eps", 1e-5},
          {"layer_norm_epsilon", 1e-5},
          {"head_dim", 6},
          {"rotary_pct", 0.7},
          {"rope_theta", 10000.0}};
}

VerifyHooks model_verify_hooks(const Json& config) {
  return {{DSE_MODEL, [config](const Item& item, const OptionSet&) { return verify_model(item, config); }},
          {DSE_KERNEL, [](const Item& item, const OptionSet&) { return verify_kernel(item); }}};
}

}  // namespace dsengine
