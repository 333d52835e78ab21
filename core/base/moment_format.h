// How an optimizer keeps the mean and the mean square of a parameter's gradients.
#pragma once
#include "base/choice.h"

namespace dsengine {

// bf16: rounded to one of its neighbours by a counted draw, so that the mean of many roundings is the value (8 bits of
// precision would otherwise swallow small changes). bits8: block-wise 8-bit codes (Dettmers et al. 2022), of matrices;
// vectors stay in float32.
enum class MomentFormat { fp32, bf16, bits8 };
template <>
inline constexpr auto kChoices<MomentFormat> = std::to_array<const char*>({"fp32", "bf16", "8bit"});

}  // namespace dsengine
