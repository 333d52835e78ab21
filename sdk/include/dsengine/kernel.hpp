// Kernels: one operation of the catalogue (catalogue.hpp), faster. For each operation of a model the engine binds the
// kernel with the highest priority that can serve it; its own reference, plain LibTorch (priority 0), stands behind all
// of them.
//
//   struct FastNorm {
//     static constexpr dse::KernelTraits traits{.op = dse::Op::rms_norm, .priority = 10};
//     explicit FastNorm(const dse_operation& o) : width(o.in), eps(o.eps) {      // throw dse::Unsupported to decline
//       if (width % 4 != 0) throw dse::Unsupported("widths that are no multiple of 4");
//     }
//     void run(const dse::Call<dse::Op::rms_norm>& call) const {
//       const float* x = call.in<float>("x");                                    // the slot is found by the compiler
//       …
//     }
//     int64_t width; double eps;
//   };
//   DSE_KERNEL("fast_norm", FastNorm)
//
// A kernel takes no memory from the device while it runs (declare `int64_t workspace_bytes(int64_t rows) const` for
// that), never waits for the device, and takes any number of rows, 0 too. On the CPU it uses dse::parallel_for.
//
// UNSTABLE: the kernel tables of the ABI are not frozen yet.
#pragma once
#include "catalogue.hpp"
#include "plugin.hpp"

namespace [[gnu::visibility("hidden")]] dse {

// A kernel's name of a slot in one of the catalogue's lists, checked when it is compiled.
template <Op op, const char* OpEntry::*list>
struct SlotName {
  uint32_t index;
  consteval SlotName(const char* name) : index(slot_index(entry(op).*list, name)) {}
};

// One call: its slots by name.
template <Op op>
struct Call {
  const dse_call& raw;

  int64_t rows() const { return raw.rows; }
  const dse_array& input(SlotName<op, &OpEntry::inputs> slot) const { return raw.inputs[slot.index]; }
  const dse_array& output(SlotName<op, &OpEntry::outputs> slot) const { return raw.outputs[slot.index]; }
  // Null where the slot is empty.
  template <class T>
  const T* in(SlotName<op, &OpEntry::inputs> slot) const {
    return static_cast<const T*>(input(slot).data);
  }
  template <class T>
  T* out(SlotName<op, &OpEntry::outputs> slot) const {
    return static_cast<T*>(output(slot).data);
  }
  double real(SlotName<op, &OpEntry::reals> slot) const { return raw.reals[slot.index]; }
  int64_t integer(SlotName<op, &OpEntry::integers> slot) const { return raw.integers[slot.index]; }
};

// Thrown by a kernel's constructor that cannot serve an operation: what it cannot.
struct Unsupported : Failure {
  explicit Unsupported(const std::string& what) : Failure(what, DSE_UNSUPPORTED) {}
};

struct KernelTraits {
  Op op;
  uint32_t dtype = DSE_F32, device = DSE_CPU;
  int32_t priority = 10;  // the engine's own have 1, or 2
  bool row_invariant = false, capturable = false;
};

template <class T>
Item kernel_item(const char* name) {
  static const dse_kernel table{
      sizeof(dse_kernel),
      DSE_KERNEL_REVISION,
      uint32_t(T::traits.op),
      T::traits.dtype,
      T::traits.device,
      (T::traits.row_invariant ? uint32_t{DSE_KERNEL_ROW_INVARIANT} : 0) |
          (T::traits.capturable ? uint32_t{DSE_KERNEL_CAPTURABLE} : 0),
      T::traits.priority,
      0,
      [](const dse_operation* operation, void** self) { return guard([&] { *self = new T(*operation); }); },
      destroy<T>,
      [](const void* self, int64_t rows) -> int64_t {
        int64_t bytes = 0;
        dse_status status = DSE_OK;
        if constexpr (requires(const T& k) { k.workspace_bytes(rows); })
          status = guard([&] { bytes = static_cast<const T*>(self)->workspace_bytes(rows); });
        return status == DSE_OK ? bytes : -1;
      },
      [](void* self, const dse_call* call) {
        return guard([&] { static_cast<T*>(self)->run(Call<T::traits.op>{*call}); });
      }};
  return {DSE_KERNEL, name, summary_of<T>(), &table, {}};
}

}  // namespace dse

#define DSE_KERNEL(name, Type)                                      \
  DSE_ITEM_NOTE("kernel", name, "1.0", dse::noted_summary<Type>()); \
  DSE_PLUGIN(name, "1.0", items.push_back(dse::kernel_item<Type>(name)))
