// A kernel plugin that was built outside core overrides an operation: it is called, and results hold.
#include "ops/kernels.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "golden_models.h"

namespace dsengine {
namespace {

const std::string library = std::string(DSE_BINARY_DIR) + "/tests/abi/libdse_counting_kernel.so";

int64_t calls(int which) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_NOLOAD);
  EXPECT_NE(handle, nullptr) << "the plugin is not loaded";
  const auto function = reinterpret_cast<int64_t (*)(int)>(dlsym(handle, "dse_test_calls"));
  return function ? function(which) : -1;
}

TEST(Kernels, APluginOverridesAnOperation) {
  const PluginRegistry registry({}, {{library, ""}}, {});
  const Kernels kernels(registry, Device::host());
  ASSERT_TRUE(kernels.has(dse::Op::rms_norm));
  ASSERT_FALSE(kernels.has(dse::Op::linear));

  Model plain = golden_model("llama_gqa", ModelKind::language, at::kFloat, reference_kernels());
  Model fast = golden_model("llama_gqa", ModelKind::language, at::kFloat, kernels);
  const Batch batch = pack_all(random_sequences({7, 1, 12}, 97));
  std::vector<std::vector<at::Tensor>> gradients;
  std::vector<at::Tensor> hidden;
  for (Model* model : {&plain, &fast}) {
    model->enable_training();
    const int64_t before = model == &fast ? calls(0) : 0, before_back = model == &fast ? calls(1) : 0;
    at::AutoGradMode grad(true);
    const at::Tensor h = model->hidden(batch);
    torch::autograd::backward({h.square().sum()}, {});
    hidden.push_back(h.detach());
    auto& all = gradients.emplace_back();
    for (const auto* unit : model->units()) all.push_back(unit->grad().clone());
    if (model == &fast) {
      const int64_t norms = 2 * model->graph().layers + 1;
      EXPECT_EQ(calls(0) - before, norms);
      EXPECT_EQ(calls(1) - before_back, norms);
    }
  }
  // Another order of summation: float32 rounding, no more.
  EXPECT_TRUE(at::allclose(hidden[0], hidden[1], 1e-5, 1e-5));
  EXPECT_GT(hidden[0].abs().max().item<float>(), 0.1f);
  for (size_t u = 0; u < gradients[0].size(); ++u)
    EXPECT_LE((gradients[0][u] - gradients[1][u]).norm().item<float>(), 1e-5f * gradients[0][u].norm().item<float>());
}

// A kernel serves the dtype it was made for; another falls to the reference.
TEST(Kernels, OtherDtypesFallBackToTheReference) {
  const PluginRegistry registry({}, {{library, ""}}, {});
  const Kernels kernels(registry, Device::host());
  const Model model = golden_model("llama_gqa", ModelKind::language, at::kDouble, kernels);
  const int64_t before = calls(0);
  const at::Tensor h = model.hidden(pack_all(random_sequences({5}, 97)));
  EXPECT_EQ(calls(0), before);
  EXPECT_TRUE(same_bits(h, golden_model("llama_gqa", ModelKind::language, at::kDouble, reference_kernels())
                               .hidden(pack_all(random_sequences({5}, 97)))));
}

}  // namespace
}  // namespace dsengine
