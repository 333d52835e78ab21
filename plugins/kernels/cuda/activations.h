// Activation functions of feed-forward layers and their slopes: silu (Elfwing et al. 2018), relu, gelu with erf and in
// its tanh form (Hendrycks and Gimpel 2016).
#pragma once
#include "kernels.h"

namespace gpu {

struct Valued {
  float value, slope;
};
__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <uint32_t activation>
__device__ inline Valued valued(float x) {
  if constexpr (activation == DSE_SILU) {
    const float s = sigmoid(x), y = x * s;
    return {y, fmaf(y, 1 - s, s)};
  } else if constexpr (activation == DSE_RELU) {
    return {x > 0 ? x : 0, x > 0 ? 1.0f : 0.0f};
  } else if constexpr (activation == DSE_GELU) {
    constexpr float kRootHalf = 0.70710678118654752f, kDensity = 0.39894228040143268f;  // 1 / √2, 1 / √(2 π)
    const float below = 0.5f * (1 + erff(x * kRootHalf));
    return {x * below, fmaf(x * kDensity, expf(-0.5f * x * x), below)};
  } else {  // 0.5 (1 + tanh u) = 1 / (1 + exp(-2 u)), u = √(2 / π) (x + 0.044715 x³)
    constexpr float kRate = 1.59576912160573071f, kCube = 0.044715f;
    const float square = x * x, s = sigmoid(kRate * fmaf(kCube * square, x, x));
    return {x * s, fmaf(x * s * (1 - s), kRate * fmaf(3 * kCube, square, 1), s)};
  }
}

// By number: DSE_SILU, …
__device__ inline float activated(uint32_t activation, float x) {
  switch (activation) {
    case DSE_SILU:
      return valued<DSE_SILU>(x).value;
    case DSE_RELU:
      return valued<DSE_RELU>(x).value;
    case DSE_GELU:
      return valued<DSE_GELU>(x).value;
    default:
      return valued<DSE_GELU_TANH>(x).value;
  }
}

// y [rows, width] = f(x), or of x = gate | up f(gate) up.
void launch_activation(uint32_t activation, bool gated, int64_t rows, int64_t width, const bf16* x, bf16* y,
                       void* stream);

}  // namespace gpu
