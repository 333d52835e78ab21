#include "ops/kernels.h"

#include <ATen/ops/empty.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <set>
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
    for (uint32_t i = 0; i < count; ++i) {
      const at::Tensor tensor = i < tensors.size() ? tensors[i] : at::Tensor();
      const std::string_view slot = dse::slot(slots, i);
      DSE_CHECK(tensor.defined() || slot.find('?') != slot.npos, "slot {} of '{}' is empty", slot, slots);
      // Of `x*` the last dimension is dense, all else is dense altogether.
      DSE_CHECK(!tensor.defined() || (slot.find('*') != slot.npos ? tensor.stride(-1) == 1 : tensor.is_contiguous()),
                "slot {} of '{}' is not dense", slot, slots);
      DSE_CHECK(!tensor.defined() || (tensor.scalar_type() == at::kLong) == slot.ends_with(":i"),
                "slot {} of '{}' has another type", slot, slots);
      arrays[i] = array_of(tensor);
    }
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
  std::string origin{};               // "op=kernel@hash of its file"
  const dse_kernel* table = nullptr;  // null: none serves it
  void* self = nullptr;
  const Device* device = nullptr;
};

bool BoundKernel::row_invariant() const { return instance_ && (instance_->table->flags & DSE_KERNEL_ROW_INVARIANT); }

void BoundKernel::run(at::ArrayRef<at::Tensor> inputs, at::ArrayRef<at::Tensor> outputs, int64_t rows,
                      at::ArrayRef<double> reals, at::ArrayRef<int64_t> integers) const {
  const auto& [operation, name, origin, table, self, device] = *instance_;
  const dse::OpEntry& entry = dse::entry(operation.op);
  const Slots in(inputs, entry.inputs), out(outputs, entry.outputs);
  DSE_CHECK(reals.size() == dse::slot_count(entry.reals) && integers.size() == dse::slot_count(entry.integers),
            "a call of {} with {} reals and {} integers", entry.name, reals.size(), integers.size());
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
  if (const int64_t bytes = workspace_bytes(rows); bytes > 0) {
    workspace = device->empty({bytes}, at::kByte);
    call.workspace = workspace.data_ptr(), call.workspace_bytes = bytes;
  }
  call_plugin("kernel " + name, table->run, self, &call);
}

int64_t BoundKernel::workspace_bytes(int64_t rows) const {
  const std::string label = "kernel " + instance_->name;
  const FloatGuard guard(instance_->name);
  int64_t bytes = -1;
  try {
    bytes = instance_->table->workspace_bytes(instance_->self, rows);
  } catch (...) {
    crossed_exception(label);
  }
  DSE_CHECK_USER(bytes >= 0, "{}: cannot say how much memory it wants for {} rows", label, rows);
  return bytes;
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
  list.push_back({item.name, item.label(), item.file.filename().string(), item.sha256, &table});
  std::stable_sort(list.begin(), list.end(), [](auto& a, auto& b) { return a.table->score > b.table->score; });
}

std::string Kernels::description() const {
  std::set<std::string> origins;
  for (const auto& instance : instances_)
    if (instance.table) origins.insert(instance.origin);
  return fmt::format("{}", fmt::join(origins, ", "));
}

BoundKernel Kernels::bind(const Operation& operation) const {
  const auto list = candidates().find(operation.op);
  if (list == candidates_.end()) return {};
  for (const auto& instance : instances_)
    if (instance.operation == operation) return instance.table ? BoundKernel(&instance) : BoundKernel();
  BoundKernel::Instance instance{.operation = operation};
  const char* op = dse::entry(operation.op).name;
  const bool contest = list->second.size() > 1;
  for (const auto& candidate : list->second) {
    if (candidate.table->dtype != dtype_of(operation.dtype)) continue;
    const dse_operation description = described(operation, *device_);
    try {
      call_plugin(candidate.label, candidate.table->create, &description, &instance.self);
    } catch (const UserError& e) {
      announce(spdlog::level::info, fmt::format("kernel operation={} passed_over={} file={} reason=\"{}\"", op,
                                                candidate.name, candidate.file, e.what()));
      continue;
    }
    instance.name = candidate.name, instance.table = candidate.table, instance.device = device_;
    instance.origin = fmt::format("{}={}@{}", op, candidate.name, candidate.sha256);
    const bool claims = candidate.table->flags & DSE_KERNEL_ROW_INVARIANT;
    announce(contest ? spdlog::level::info : spdlog::level::debug,
             fmt::format("kernel operation={} winner={} file={}{}", op, candidate.name, candidate.file,
                         claims ? "" : " note=\"a row's bits may depend on its neighbours\""));
    break;
  }
  const auto& kept = instances_.emplace_back(std::move(instance));
  return kept.table ? BoundKernel(&kept) : BoundKernel();
}

void Kernels::announce(spdlog::level::level_enum level, const std::string& line) const {
  if (announced_.insert(line).second) spdlog::log(level, "{}", line);
}

}  // namespace dsengine
