#include "ops/kernels.h"

#include <ATen/ops/empty.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "base/check.h"
#include "memory/ledger.h"
#include "ops/wide.h"
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
    case at::kByte:
      return DSE_U8;
    default:
      return 0;
  }
}

// What has no values is planned for with the host's kernels, unless for a card. Of other devices none has kernels.
uint32_t kind_of(at::Device where) {
  return where.is_cpu() || where.is_meta() ? uint32_t{DSE_CPU} : where.is_cuda() ? uint32_t{DSE_CUDA} : 0;
}
uint32_t index_of(at::Device where) { return where.has_index() ? uint32_t(where.index()) : 0; }

dse_array array_of(const at::Tensor& t) {
  return {sizeof(dse_array), dtype_of(t.scalar_type()), t.data_ptr(),      kind_of(t.device()), index_of(t.device()),
          t.dim(),           t.sizes().data(),          t.strides().data()};
}

// What the catalogue says of a slot.
struct SlotForm {
  std::string_view name;
  bool optional, strided;
  char type;  // i, f or w; ' ': none of these

  bool takes(at::ScalarType slot, at::ScalarType operation) const {
    switch (type) {
      case 'i':
        return slot == at::kLong;
      case 'f':
        return slot == ops::wide(operation);
      case 'w':
        return slot == operation || slot == at::kFloat;
      default:  // bytes of packed weights, and what is float64 whatever the operation's dtype is
        return slot == operation || slot == at::kByte || slot == at::kDouble;
    }
  }
};

std::vector<SlotForm> forms_of(const char* slots) {
  std::vector<SlotForm> forms;
  for (uint32_t i = 0; i < dse::slot_count(slots); ++i) {
    const auto slot = dse::slot(slots, i);
    const char type = slot.find(':') == slot.npos ? ' ' : slot.back();
    forms.push_back({slot, slot.find('?') != slot.npos, slot.find('*') != slot.npos, type});
  }
  return forms;
}

struct Slots {
  std::array<dse_array, kMostSlots> arrays;
  Slots(at::ArrayRef<at::Tensor> tensors, const std::vector<SlotForm>& forms, const Operation& operation) {
    const char* const op = dse::entry(operation.op).name;
    DSE_CHECK(tensors.size() <= forms.size() && forms.size() <= kMostSlots, "{}: {} tensors for {} slots", op,
              tensors.size(), forms.size());
    for (size_t i = 0; i < forms.size(); ++i) {
      const SlotForm& form = forms[i];
      if (i >= tensors.size() || !tensors[i].defined()) {
        DSE_CHECK(form.optional, "{}: slot {} is empty", op, form.name);
        arrays[i] = {sizeof(dse_array), 0, nullptr, 0, 0, 0, nullptr, nullptr};
        continue;
      }
      const at::Tensor& tensor = tensors[i];
      DSE_CHECK(form.strided ? tensor.stride(-1) == 1 : tensor.is_contiguous(), "{}: slot {} is not dense", op,
                form.name);
      DSE_CHECK(form.takes(tensor.scalar_type(), operation.dtype), "{}: slot {} has another type", op, form.name);
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
          .softcap = o.softcap != 0 ? o.softcap : o.scores.softcap,
          .rope_pairs = int64_t(o.rope.frequencies.size()),
          .rope_long_after = o.rope.long_after,
          .rope_frequencies = o.rope.frequencies.data(),
          .rope_long_frequencies = o.rope.long_frequencies.empty() ? nullptr : o.rope.long_frequencies.data(),
          .rope_amplitude = o.rope.amplitude,
          .packing = uint32_t(o.packing),
          .reserved = 0};
}

}  // namespace

struct BoundKernel::Instance {
  Operation operation;
  std::string label{};                // for messages
  std::string library{};              // hash of its file
  const dse_kernel* table = nullptr;  // null: none serves it
  void* self = nullptr;
  const Kernels* owner = nullptr;
  std::vector<SlotForm> inputs{}, outputs{};
  struct Told {
    spdlog::level::level_enum level;
    std::string line;
  };
  std::vector<Told> told{};
};

bool BoundKernel::row_invariant() const { return instance_ && instance_->table->flags & DSE_KERNEL_ROW_INVARIANT; }
bool BoundKernel::same_library(const BoundKernel& other) const {
  return instance_ && other.instance_ && instance_->library == other.instance_->library;
}

void BoundKernel::run(at::ArrayRef<at::Tensor> inputs, at::ArrayRef<at::Tensor> outputs, int64_t rows,
                      at::ArrayRef<double> reals, at::ArrayRef<int64_t> integers) const {
  const Instance& kernel = *instance_;
  const dse::OpEntry& entry = dse::entry(kernel.operation.op);
  const Slots in(inputs, kernel.inputs, kernel.operation), out(outputs, kernel.outputs, kernel.operation);
  DSE_CHECK(reals.size() == dse::slot_count(entry.reals) && integers.size() == dse::slot_count(entry.integers),
            "a call of {} with {} reals and {} integers", entry.name, reals.size(), integers.size());
  dse_call call{.struct_size = sizeof(dse_call),
                .input_count = uint32_t(kernel.inputs.size()),
                .output_count = uint32_t(kernel.outputs.size()),
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
                .stream = kernel.owner->device().stream()};
  at::Tensor workspace;
  const int64_t bytes = in_plugin(kernel.label, [&] { return kernel.table->workspace_bytes(kernel.self, rows); });
  DSE_CHECK_USER(bytes >= 0, "{}: cannot say how much memory it wants for {} rows", kernel.label, rows);
  if (bytes > 0) {
    const MemoryScope scope(MemoryTag::workspace);
    workspace = kernel.owner->device().empty({bytes}, at::kByte);
    call.workspace = workspace.data_ptr(), call.workspace_bytes = bytes;
  }
  if (!kernel.owner->device().has_values()) {
    const MachineRates& rates = kernel.owner->rates_;
    if (rates.product_gflops > 0)
      kernel.owner->seconds_ += least_seconds(kernel.operation, rows, inputs, outputs, integers, rates);
    return;
  }
  call_plugin(kernel.label, kernel.table->run, kernel.self, &call);
}

Kernels::Kernels() = default;
Kernels::Kernels(const PluginRegistry& registry, const Device& device, bool for_card)
    : registry_(&registry), device_(&device), for_card_(for_card) {
  DSE_CHECK(!for_card || !device.has_values(), "kernels that are planned with, on a device with values");
}

Kernels::~Kernels() {
  for (auto& instance : instances_)
    if (instance.self) {
      const FloatGuard guard(instance.label);
      instance.table->destroy(instance.self);
    }
}

const Kernels& Kernels::beside() const {
  if (!device_->is_apart()) return *this;
  if (!beside_)
    beside_ =
        registry_ ? std::make_unique<const Kernels>(*registry_, Device::host()) : std::make_unique<const Kernels>();
  return *beside_;
}

const Kernels& Kernels::exact() const {
  if (exact_first_) return *this;
  if (!exact_) {
    exact_ = registry_ ? std::make_unique<Kernels>(*registry_, *device_, for_card_) : std::make_unique<Kernels>();
    exact_->exact_first_ = exact_->read_ = true, exact_->rates_ = rates_;
    exact_->candidates_ = candidates(), exact_->planned_for_card_ = planned_for_card_;
    const auto varies = [](const Candidate& c) { return !(c.table->flags & DSE_KERNEL_ROW_INVARIANT); };
    for (auto& [_, list] : exact_->candidates_)
      std::stable_sort(list.begin(), list.end(), [&](auto& a, auto& b) { return varies(a) < varies(b); });
  }
  return *exact_;
}

const Kernels::Candidates& Kernels::candidates() const {
  if (registry_ && !std::exchange(read_, true)) {
    const bool card = for_card_ || kind_of(device_->where()) == DSE_CUDA;
    const auto items = registry_->kernels(card);
    const auto is_for_card = [](const Item* item) { return item->kernel().device == DSE_CUDA; };
    planned_for_card_ = for_card_ && std::ranges::any_of(items, is_for_card);
    for (const auto* item : items) add(*item);
  }
  return candidates_;
}

bool Kernels::on_card() const {
  candidates();
  return planned_for_card_ || device_->where().is_cuda();
}

void Kernels::add(const Item& item) const {
  const auto& table = item.kernel();
  if (table.device != (planned_for_card_ ? uint32_t{DSE_CUDA} : kind_of(device_->where()))) return;
  auto& list = candidates_[dse::Op(table.op)];
  list.push_back({item.name, item.label(), item.file.filename().string(), item.sha256, &table});
  std::stable_sort(list.begin(), list.end(), [](auto& a, auto& b) { return a.table->priority > b.table->priority; });
}

std::string Kernels::description() const {
  std::set<std::string> origins;
  for (const auto& [op, offered] : candidates())
    for (const auto& kernel : offered)
      origins.insert(fmt::format("{}={}@{}", dse::entry(op).name, kernel.name, kernel.sha256));
  return fmt::format("{}", fmt::join(origins, ", "));
}

BoundKernel Kernels::bind(const Operation& operation) const {
  const auto list = candidates().find(operation.op);
  if (list == candidates_.end()) {
    recordable_ = false;
    return {};
  }
  const auto served = [this](const BoundKernel::Instance& by) {
    for (const auto& [level, line] : by.told) announce(level, line);
    return by.table ? BoundKernel(&by) : BoundKernel();
  };
  for (const auto& instance : instances_)
    if (instance.operation == operation) return served(instance);
  BoundKernel::Instance instance{.operation = operation};
  const char* op = dse::entry(operation.op).name;
  const bool contest = list->second.size() > 1;
  for (const auto& candidate : list->second) {
    if (candidate.table->dtype != dtype_of(operation.dtype)) continue;
    dse_operation description = described(operation, *device_);
    if (planned_for_card_) description.device = DSE_CUDA, description.device_index = DSE_PLANNED;
    try {
      call_plugin(candidate.label, candidate.table->create, &description, &instance.self);
    } catch (const UserError& e) {
      instance.told.push_back(
          {spdlog::level::info, fmt::format("kernel operation={} passed_over={} file={} reason=\"{}\"", op,
                                            candidate.name, candidate.file, e.what())});
      continue;
    }
    instance.label = candidate.label, instance.table = candidate.table, instance.owner = this;
    instance.inputs = forms_of(dse::entry(operation.op).inputs);
    instance.outputs = forms_of(dse::entry(operation.op).outputs);
    instance.library = candidate.sha256;
    const bool claims = candidate.table->flags & DSE_KERNEL_ROW_INVARIANT;
    instance.told.push_back({contest ? spdlog::level::info : spdlog::level::debug,
                             fmt::format("kernel operation={} winner={} file={}{}", op, candidate.name, candidate.file,
                                         claims ? "" : " note=\"a row's bits may depend on its neighbours\"")});
    break;
  }
  recordable_ &= instance.table && instance.table->flags & DSE_KERNEL_CAPTURABLE;
  return served(instances_.emplace_back(std::move(instance)));
}

BoundKernel Kernels::bind_whole(const Operation& operation) const {
  if (exact_first_ || !has(operation.op)) return {};  // training has the operations one after the other
  const bool recordable = recordable_;
  const BoundKernel kernel = bind(operation);
  if (kernel && (recordable_ == recordable || !on_card())) return kernel;
  recordable_ = recordable;
  return {};
}

// Once, as soon as the log takes it: while inputs are checked it does not.
void Kernels::announce(spdlog::level::level_enum level, const std::string& line) const {
  if (spdlog::should_log(level) && announced_.insert(line).second) spdlog::log(level, "{}", line);
}

}  // namespace dsengine
