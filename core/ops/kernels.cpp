#include "ops/kernels.h"

#include <ATen/ops/empty.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"
#include "plugin/host.h"

namespace dsengine {

namespace {

constexpr size_t kMostSlots = 8;

uint32_t dtype_of(at::ScalarType type) {
  switch (type) {
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

uint32_t kind_of(at::Device where) { return where.is_cuda() ? DSE_CUDA : DSE_CPU; }
uint32_t index_of(at::Device where) { return where.has_index() ? uint32_t(where.index()) : 0; }

dse_array array_of(const at::Tensor& t) {
  if (!t.defined()) return {sizeof(dse_array), 0, nullptr, 0, 0, 0, nullptr, nullptr};
  return {sizeof(dse_array), dtype_of(t.scalar_type()), t.data_ptr(),      kind_of(t.device()), index_of(t.device()),
          t.dim(),           t.sizes().data(),          t.strides().data()};
}

struct Slots {
  std::array<dse_array, kMostSlots> arrays;
  uint32_t count;
  Slots(at::ArrayRef<at::Tensor> tensors, const char* slots) : count(dse::slot_count(slots)) {
    DSE_CHECK(tensors.size() <= count && count <= kMostSlots, "{} tensors for the slots '{}'", tensors.size(), slots);
    for (size_t i = 0; i < count; ++i) arrays[i] = i < tensors.size() ? array_of(tensors[i]) : array_of({});
  }
};

dse_operation described(const Operation& o, const Device& device) {
  return {.struct_size = sizeof(dse_operation),
          .op = uint32_t(o.op),
          .dtype = dtype_of(o.dtype),
          .device = kind_of(device.where()),
          .device_index = index_of(device.where()),
          .activation = uint32_t(o.activation),
          .in = o.in,
          .out = o.out,
          .heads = o.heads,
          .kv_heads = o.kv_heads,
          .head_dim = o.head_dim,
          .window = o.scores.window,
          .eps = o.eps,
          .shift = o.shift,
          .scale = o.scores.scale,
          .softcap = o.op == dse::Op::log_prob || o.op == dse::Op::log_prob_backward ? o.softcap : o.scores.softcap,
          .rope_pairs = int64_t(o.rope.frequencies.size()),
          .rope_long_after = o.rope.long_after,
          .rope_frequencies = o.rope.frequencies.data(),
          .rope_long_frequencies = o.rope.long_frequencies.empty() ? nullptr : o.rope.long_frequencies.data(),
          .rope_amplitude = o.rope.amplitude};
}

}  // namespace

struct BoundKernel::Instance {
  Operation operation;
  std::string name{};
  const dse_kernel* table = nullptr;  // null: none serves it
  void* self = nullptr;
  const Device* device = nullptr;
};

bool BoundKernel::row_invariant() const { return instance_ && (instance_->table->flags & DSE_KERNEL_ROW_INVARIANT); }

void BoundKernel::run(at::ArrayRef<at::Tensor> inputs, at::ArrayRef<at::Tensor> outputs, int64_t rows,
                      at::ArrayRef<double> reals, at::ArrayRef<int64_t> integers) const {
  const auto& [operation, name, table, self, device] = *instance_;
  const dse::OpEntry& entry = dse::entry(operation.op);
  const Slots in(inputs, entry.inputs), out(outputs, entry.outputs);
  DSE_CHECK(reals.size() == dse::slot_count(entry.reals) && integers.size() == dse::slot_count(entry.integers),
            "a call of {} with {} reals and {} integers", entry.name, reals.size(), integers.size());
  const FloatGuard guard(name);
  dse_call call{.struct_size = sizeof(dse_call),
                .input_count = in.count,
                .output_count = out.count,
                .real_count = uint32_t(reals.size()),
                .integer_count = uint32_t(integers.size()),
                .reserved = 0,
                .rows = rows,
                .inputs = in.arrays.data(),
                .outputs = out.arrays.data(),
                .reals = reals.data(),
                .integers = integers.data(),
                .workspace = nullptr,
                .workspace_bytes = 0,
                .stream = nullptr};
  at::Tensor workspace;
  if (const int64_t bytes = table->workspace_bytes(self, rows); bytes > 0) {
    workspace = device->empty({bytes}, at::kByte);
    call.workspace = workspace.data_ptr(), call.workspace_bytes = bytes;
  }
  check_status(table->run(self, &call), "kernel " + name);
}

Kernels::Kernels() = default;
Kernels::Kernels(const PluginRegistry& registry, const Device& device) : registry_(&registry), device_(&device) {}

Kernels::~Kernels() {
  for (auto& instance : instances_)
    if (instance.self) {
      const FloatGuard guard(instance.name);
      instance.table->destroy(instance.self);
    }
}

const Kernels::Candidates& Kernels::candidates() const {
  if (const auto* registry = std::exchange(registry_, nullptr))
    for (const auto* item : registry->items(DSE_KERNEL)) add(*item);
  return candidates_;
}

void Kernels::add(const Item& item) const {
  const auto& table = item.kernel();
  if (table.device != kind_of(device_->where())) return;
  auto& list = candidates_[dse::Op(table.op)];
  list.push_back({item.name, item.sha256, &table});
  std::stable_sort(list.begin(), list.end(), [](auto& a, auto& b) { return a.table->score > b.table->score; });
}

std::string Kernels::description() const {
  std::string text;
  for (const auto& [op, list] : candidates())
    for (const auto& kernel : list)
      text += fmt::format("{}{}={}@{}", text.empty() ? "" : ", ", dse::entry(op).name, kernel.name, kernel.sha256);
  return text;
}

BoundKernel Kernels::bind(const Operation& operation) const {
  const auto list = candidates().find(operation.op);
  if (list == candidates_.end()) return {};
  for (const auto& instance : instances_)
    if (instance.operation == operation) return instance.table ? BoundKernel(&instance) : BoundKernel();
  auto& instance = instances_.emplace_back(BoundKernel::Instance{.operation = operation});
  const char* op = dse::entry(operation.op).name;
  for (const auto& candidate : list->second) {
    if (candidate.table->dtype != dtype_of(operation.dtype)) continue;
    const dse_operation description = described(operation, *device_);
    void* self = nullptr;
    const std::string label = "kernel " + candidate.name;
    const FloatGuard guard(candidate.name);
    clear_failure();
    dse_status status = DSE_ERROR;
    try {
      status = candidate.table->create(&description, &self);
    } catch (...) {
      crossed_exception(label);
    }
    if (status == DSE_OK) {
      instance.name = candidate.name, instance.table = candidate.table, instance.self = self;
      instance.device = device_;
      announce(list->second.size() > 1 ? spdlog::level::info : spdlog::level::debug,
               fmt::format("kernel operation={} winner={}", op, candidate.name));
      return BoundKernel(&instance);
    }
    try {
      check_status(status, label);
    } catch (const UserError& e) {
      if (status != DSE_UNSUPPORTED) throw;
      announce(spdlog::level::info,
               fmt::format("kernel operation={} passed_over={} reason=\"{}\"", op, candidate.name, e.what()));
    }
  }
  return {};
}

void Kernels::announce(spdlog::level::level_enum level, const std::string& line) const {
  if (announced_.insert(line).second) spdlog::log(level, "{}", line);
}

}  // namespace dsengine
