#include "model/init.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/philox.h"

namespace dsengine {

void draw_weights(Model& model, double deviation, uint64_t seed) {
  at::NoGradGuard no_grad;
  const auto draw = [&](const Model::NamedTensor& named) {
    const auto* spec = named.spec;
    const at::Tensor& tensor = named.tensor;
    if (spec->init == Init::zeros) tensor.zero_();
    if (spec->init == Init::ones) tensor.fill_(1);
    if (spec->init != Init::normal) return;
    const Philox draws(seed, Purpose::init, name_hash(spec->tensor), uint64_t(std::max<int64_t>(0, spec->first_row)));
    at::Tensor values = Device::host().empty(tensor.sizes(), at::kFloat);
    float* out = values.mutable_data_ptr<float>();
    for (int64_t i = 0; i < values.numel(); ++i) out[i] = float(deviation * draws.normal(uint64_t(i)));
    tensor.copy_(values);
  };
  model.each_section(Model::Access::write, [&](const auto& tensors) { std::ranges::for_each(tensors, draw); });
}

}  // namespace dsengine
