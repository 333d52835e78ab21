#include "model/init.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/philox.h"
#include "ops/threads.h"

namespace dsengine {

void draw_weights(Model& model, double deviation, uint64_t seed, bool quick) {
  at::NoGradGuard no_grad;
  const auto draw = [&](const Model::NamedTensor& named) {
    const auto* spec = named.spec;
    const at::Tensor& tensor = named.tensor;
    if (spec->init == Init::zeros) tensor.zero_();
    if (spec->init == Init::ones) tensor.fill_(1);
    if (spec->init != Init::normal) return;
    if (quick) {
      at::Generator generator = at::globalContext().defaultGenerator(tensor.device()).clone();
      generator.set_current_seed(seed ^ name_hash(spec->tensor) ^ uint64_t(spec->first_row + 1) << 40);
      return void(at::Tensor(tensor).normal_(0, deviation, generator));
    }
    const Philox draws(seed, Purpose::init, name_hash(spec->tensor), uint64_t(std::max<int64_t>(0, spec->first_row)));
    at::Tensor values = Device::host().empty(tensor.sizes(), at::kFloat);
    float* out = values.mutable_data_ptr<float>();
    constexpr int64_t kElementsAThread = 1 << 12;
    parallel_for(0, values.numel(), kElementsAThread, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) out[i] = float(deviation * draws.normal(uint64_t(i)));
    });
    tensor.copy_(values);
  };
  model.each_section(Model::Access::write, [&](const auto& tensors) { std::ranges::for_each(tensors, draw); });
}

}  // namespace dsengine
