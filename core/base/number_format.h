// What models compute in.
#pragma once
#include "base/choice.h"

namespace dsengine {

// automatic: bf16 on a graphics card, else fp32. bf16: weights and activations are bfloat16, sums float32; what is
// trained has a float32 value beside, to which updates are made.
enum class NumberFormat { automatic, fp32, bf16 };
template <>
inline constexpr auto kChoices<NumberFormat> = std::to_array<const char*>({"auto", "fp32", "bf16"});

}  // namespace dsengine
