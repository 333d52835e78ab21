#include "model/kernels.h"

#include <ATen/ops/empty.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "plugin/host.h"

namespace dsengine {

namespace {

uint32_t dtype_of(const at::Tensor& t) {
  switch (t.scalar_type()) {
    case at::kFloat:
      return DSE_F32;
    case at::kDouble:
      return DSE_F64;
    case at::kBFloat16:
      return DSE_BF16;
    case at::kInt:
      return DSE_I32;
    case at::kLong:
      return DSE_I64;
    default:
      return 0;
  }
}

std::vector<dse_array> arrays(at::ArrayRef<at::Tensor> tensors) {
  std::vector<dse_array> result;
  for (const auto& t : tensors) {
    if (!t.defined()) continue;
    result.push_back({sizeof(dse_array), dtype_of(t), t.data_ptr(), t.is_cuda() ? DSE_CUDA : DSE_CPU, 0, t.dim(),
                      t.sizes().data(), t.strides().data()});
  }
  return result;
}

}  // namespace

Kernels::Kernels(const PluginRegistry& registry, const Device& device) : device_(&device) {
  for (const auto* item : registry.items(DSE_KERNEL)) add(*item);
}

void Kernels::add(const Item& item) {
  const auto& table = item.kernel();
  if (table.device != uint32_t(device_->where().is_cuda() ? DSE_CUDA : DSE_CPU)) return;
  void* self = nullptr;
  call_plugin(item.label(), table.create, 0, &self);
  auto& list = kernels_[table.operation];
  list.push_back({item.name, item.sha256, &table, self});
  std::stable_sort(list.begin(), list.end(), [](auto& a, auto& b) { return a.table->score > b.table->score; });
}

std::string Kernels::description() const {
  std::string text;
  for (const auto& [operation, list] : kernels_)
    for (const auto& kernel : list)
      text += fmt::format("{}{}={}@{}", text.empty() ? "" : ", ", operation, kernel.name, kernel.sha256);
  return text;
}

Kernels::~Kernels() {
  for (auto& [_, list] : kernels_)
    for (auto& kernel : list) {
      const FloatGuard guard(kernel.name);
      kernel.table->destroy(kernel.self);
    }
}

bool Kernels::run(const std::string& operation, at::ArrayRef<at::Tensor> inputs, at::ArrayRef<at::Tensor> outputs,
                  at::ArrayRef<KernelAttribute> attributes) const {
  const auto it = kernels_.find(operation);
  if (it == kernels_.end()) return false;
  const auto in = arrays(inputs), out = arrays(outputs);
  std::vector<dse_attribute> named;
  for (const auto& a : attributes)
    named.push_back({sizeof(dse_attribute), DSE_OPTION_REAL, a.name, int64_t(a.value), a.value, nullptr});
  dse_call call{sizeof(dse_call),
                uint32_t(in.size()),
                uint32_t(out.size()),
                uint32_t(named.size()),
                in.data(),
                out.data(),
                named.data(),
                nullptr,
                0,
                nullptr};
  for (const auto& kernel : it->second) {
    const FloatGuard guard(kernel.name);
    if (in.empty() || kernel.table->dtype != in[0].dtype || !kernel.table->supports(kernel.self, &call)) continue;
    at::Tensor workspace;
    if (const auto bytes = kernel.table->workspace_bytes(kernel.self, &call); bytes > 0) {
      workspace = at::empty({bytes}, at::kByte);
      call.workspace = workspace.data_ptr(), call.workspace_bytes = bytes;
    }
    if (!kernel.announced) spdlog::info("kernel operation={} winner={}", operation, kernel.name);
    kernel.announced = true;
    check_status(kernel.table->run(kernel.self, &call), "kernel " + kernel.name);
    return true;
  }
  return false;
}

}  // namespace dsengine
