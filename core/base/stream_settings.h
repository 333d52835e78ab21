// How the weights of layers are kept while nothing reads them.
#pragma once
#include "base/choice.h"

namespace dsengine {

// nf4: four bits and a scale for 64 of a row (QLoRA; Dettmers et al. 2023). They are read as the float32 that the code
// gives.
enum class FrozenFormat { fp32, nf4 };
template <>
inline constexpr auto kChoices<FrozenFormat> = std::to_array<const char*>({"fp32", "nf4"});

struct StreamSettings {
  FrozenFormat format = FrozenFormat::fp32;  // of linears that are never trained
  bool offload = false;                      // they lie in another memory than the device's (memory/offload.h)
  bool trained = false;                      // all of it is trained; in fp32, beside what is read narrower
  bool wide = true;                          // what is trained has float32 values beside bfloat16 ones

  // Whether they are anything but weights like the others.
  bool apart() const { return format != FrozenFormat::fp32 || offload; }
};

}  // namespace dsengine
