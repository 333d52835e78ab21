// exp of float32 as arithmetic that compilers vectorise, within 2 units in the last place (range reduction and
// polynomial of Cephes' expf). Vectorised libraries round the last few elements of a range differently from the others,
// so that a row's bits would depend on where it stands; here every element is computed alike, by fused multiply-adds
// written out.
//
//   #pragma omp simd
//   for (int64_t i = 0; i < n; ++i) y[i] = vector_exp(x[i]);
//
// Arguments are held to [-87.3, 88]: no overflow, and what would underflow becomes 1e-38.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

namespace cpu {

inline float vector_exp(float x) {
  x = x > 88.0f ? 88.0f : x;
  x = x < -87.3f ? -87.3f : x;
  constexpr float rounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float n = std::fma(x, 1.44269504f, rounder) - rounder;
  float r = std::fma(n, -0.693359375f, x);
  r = std::fma(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = std::fma(p, r, 1.3981999507e-3f);
  p = std::fma(p, r, 8.3334519073e-3f);
  p = std::fma(p, r, 4.1665795894e-2f);
  p = std::fma(p, r, 1.6666665459e-1f);
  p = std::fma(p, r, 5.0000001201e-1f);
  const float y = std::fma(p, r * r, r) + 1.0f;
  return y * std::bit_cast<float>((int32_t(n) + 127) << 23);
}

}  // namespace cpu
