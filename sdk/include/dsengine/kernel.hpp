// Kernels: one operation of the catalogue, faster. The engine takes the kernel with the highest score that
// supports a call; the LibTorch reference (score 0) stays as the fallback.
//
//   struct FastNorm {
//     static constexpr dse::KernelTraits traits{.operation = "rms_norm", .score = 10};
//     bool supports(const dse_call&) const { return true; }
//     void run(const dse_call& call) const { … }
//   };
//   DSE_KERNEL("fast_norm", FastNorm)
//
// The catalogue (N tokens, H width; outputs are allocated by the engine, dense unless said). An operation
// "X.backward" is an operation of its own; where it is listed, an X is used in training only if that is served too.
// The backward of linear is two products by LibTorch. activation: 0 silu, 1 relu, 2 gelu, 3 gelu_tanh.
//
//   linear              x [N, I], w [O, I], (b [O])           -> y [N, O]
//   rms_norm            x [N, H], w [H]; eps                  -> y [N, H], rstd [N]
//   rms_norm.backward   dy, x [N, H], w [H], rstd [N]         -> dx [N, H], dw [H]
//   gated_activation    gate_up [N, 2W]; activation           -> y [N, W]
//   gated_activation.backward  dy [N, W], gate_up; activation -> d_gate_up [N, 2W]
//
// UNSTABLE: the kernel tables of the ABI are not frozen yet.
#pragma once
#include "plugin.hpp"

namespace [[gnu::visibility("hidden")]] dse {

struct KernelTraits {
  const char* operation;
  uint32_t dtype = DSE_F32, device = DSE_CPU;
  int32_t minimum_sm = 0, score = 1;
};

// An attribute of a call by name; fallback where it is absent.
inline double real_attribute(const dse_call& call, const char* name, double fallback) {
  for (uint32_t i = 0; i < call.attribute_count; ++i)
    if (std::string(call.attributes[i].name) == name) return call.attributes[i].real;
  return fallback;
}

template <class T>
Item kernel_item(const char* name) {
  static const dse_kernel table{
      sizeof(dse_kernel),
      1,
      T::traits.operation,
      T::traits.dtype,
      T::traits.device,
      T::traits.minimum_sm,
      T::traits.score,
      [](uint32_t, void** self) { return guard([&] { *self = new T(); }); },
      destroy<T>,
      [](const void* self, const dse_call* call) -> int32_t {
        bool yes = false;
        guard([&] { yes = static_cast<const T*>(self)->supports(*call); });
        return yes;
      },
      [](const void* self, const dse_call* call) -> int64_t {
        int64_t bytes = 0;
        if constexpr (requires(const T& k) { k.workspace_bytes(*call); })
          guard([&] { bytes = static_cast<const T*>(self)->workspace_bytes(*call); });
        return bytes;
      },
      [](void* self, const dse_call* call) { return guard([&] { static_cast<T*>(self)->run(*call); }); }};
  return {DSE_KERNEL, name, summary_of<T>(), &table, {}};
}

}  // namespace dse

#define DSE_KERNEL(name, Type)                                      \
  DSE_ITEM_NOTE("kernel", name, "1.0", dse::noted_summary<Type>()); \
  DSE_PLUGIN(name, "1.0", items.push_back(dse::kernel_item<Type>(name)))
