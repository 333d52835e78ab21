// What the kernels of this folder are made of, once for each instruction set: tiles of sums of products, transposing,
// exp and tanh. Included between HWY_BEFORE_NAMESPACE and HWY_AFTER_NAMESPACE's files as Highway's own "-inl.h" are.
//
// Every element is one chain of fused multiply-adds in a fixed order, and every lane is computed alike: so the bits do
// not depend on the width of a vector, nor on what stands beside.
#if defined(DSE_CPU_TILE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef DSE_CPU_TILE_INL_H
#undef DSE_CPU_TILE_INL_H
#else
#define DSE_CPU_TILE_INL_H
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <utility>

HWY_BEFORE_NAMESPACE();
namespace cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

constexpr D d;
constexpr int64_t kLanes = int64_t(hn::MaxLanes(D()));
constexpr int64_t kVectors = 2;                   // of a tile's columns
constexpr int64_t kColumns = kVectors * kLanes;   // of a tile
constexpr int64_t kRows = kLanes >= 16 ? 14 : 6;  // of a tile at most: 28 or 12 sums in 32 or 16 registers
constexpr float kLowest = -1e30f;                 // a score, or a logit, that does not count
constexpr int64_t kWidest = 256;                  // of a packed row
constexpr int64_t kRowStride = kWidest + 16;      // between packed rows, which so meet in no set of the cache

// sums [R, kColumns] += a bᵀ, the step of every chain: row r's number is a[r * a_row], known to the compiler.
template <int R, int64_t a_row>
HWY_INLINE void add_products(const float* HWY_RESTRICT a, const V (&b)[kVectors], V (&sums)[R][kVectors]) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const V as = hn::Set(d, a[r * a_row]);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::MulAdd(as, b[v], sums[r][v]);
  }
}

// Asks for what is read later, to the second level of the cache: for so many misses the first has no room.
HWY_INLINE void fetch(const void* line) { __builtin_prefetch(line, 0, 2); }

// C [rows, kColumns] = or += A [rows, depth] B [depth, kColumns], rows <= kRows. A's element (r, k) is
// a[r * a_row + k * a_column], both known to the compiler. B's rows are aligned to a vector.
template <int R, int64_t a_row, int64_t a_column>
HWY_NOINLINE void multiply_rows(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, int64_t b_stride,
                                int64_t depth, float* HWY_RESTRICT c, int64_t c_stride, bool from_zero) {
  V sums[R][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v)
      sums[r][v] = from_zero ? hn::Zero(d) : hn::LoadU(d, c + r * c_stride + v * kLanes);
  for (int64_t k = 0; k < depth; ++k, b += b_stride) {
    V bs[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) bs[v] = hn::Load(d, b + v * kLanes);
    add_products<R, a_row>(a + k * a_column, bs, sums);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sums[r][v], d, c + r * c_stride + v * kLanes);
}

using MultiplyRows = void (*)(const float*, const float*, int64_t, int64_t, float*, int64_t, bool);
template <int64_t a_row, int64_t a_column, int... R>
MultiplyRows multiply_of(int64_t rows, std::integer_sequence<int, R...>) {
  static constexpr MultiplyRows all[] = {&multiply_rows<R + 1, a_row, a_column>...};
  return all[rows - 1];
}
template <int64_t a_row, int64_t a_column>
HWY_INLINE void multiply_tile(int64_t rows, const float* a, const float* b, int64_t b_stride, int64_t depth, float* c,
                              int64_t c_stride, bool from_zero) {
  multiply_of<a_row, a_column>(rows, std::make_integer_sequence<int, int(kRows)>())(a, b, b_stride, depth, c, c_stride,
                                                                                    from_zero);
}

// 4 x 4 in each block of 128 bits: row j of `to`, lane 4 q + i = r[i], lane 4 q + j.
HWY_INLINE void transpose_blocks(V r0, V r1, V r2, V r3, float* HWY_RESTRICT to, int64_t stride) {
  const hn::Repartition<double, D> d64;
  const auto wide = [&](V v) { return hn::BitCast(d64, v); };
  const auto t0 = wide(hn::InterleaveLower(d, r0, r1)), t1 = wide(hn::InterleaveUpper(d, r0, r1));
  const auto t2 = wide(hn::InterleaveLower(d, r2, r3)), t3 = wide(hn::InterleaveUpper(d, r2, r3));
  hn::Store(hn::BitCast(d, hn::InterleaveLower(d64, t0, t2)), d, to);
  hn::Store(hn::BitCast(d, hn::InterleaveUpper(d64, t0, t2)), d, to + stride);
  hn::Store(hn::BitCast(d, hn::InterleaveLower(d64, t1, t3)), d, to + 2 * stride);
  hn::Store(hn::BitCast(d, hn::InterleaveUpper(d64, t1, t3)), d, to + 3 * stride);
}

// Lanes 4 q … 4 q + 3 from row(q).
template <class Row>
HWY_INLINE V gather_blocks(const Row& row) {
  V v = hn::LoadDup128(d, row(0));
  if constexpr (kLanes >= 8) v = hn::IfThenElse(hn::Not(hn::FirstN(d, 4)), hn::LoadDup128(d, row(1)), v);
  if constexpr (kLanes >= 16) {
    v = hn::IfThenElse(hn::Not(hn::FirstN(d, 8)), hn::LoadDup128(d, row(2)), v);
    v = hn::IfThenElse(hn::Not(hn::FirstN(d, 12)), hn::LoadDup128(d, row(3)), v);
  }
  return v;
}

// k a step of transpose_step: a line of 64 bytes of each row with AVX-512, half of one with AVX2.
constexpr int64_t kStep = kLanes;

// to [kStep, kLanes], rows `stride` apart, = kStep numbers of each of kLanes rows, transposed.
template <class Row>
HWY_INLINE void transpose_step(const Row& row, float* HWY_RESTRICT to, int64_t stride) {
  constexpr int64_t groups = kStep / 4;
  V r[groups][4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
    for (int64_t g = 0; g < groups; ++g) r[g][i] = gather_blocks([&](int64_t q) { return row(4 * q + i) + 4 * g; });
#pragma GCC unroll 4
  for (int64_t g = 0; g < groups; ++g)
    transpose_blocks(r[g][0], r[g][1], r[g][2], r[g][3], to + 4 * g * stride, stride);
}

// exp within 2 units in the last place (range reduction and polynomial of Cephes' expf); arguments are held to
// [-87.3, 88]. exp(0) is 1.
HWY_INLINE V exp(V x) {
  const hn::RebindToSigned<D> di;
  const auto set = [](float value) { return hn::Set(d, value); };
  x = hn::Max(set(-87.3f), hn::Min(set(88.0f), x));  // in this order what is no number stays none
  const V rounder = set(12582912.0f);                // 1.5 * 2^23: adding it rounds to an integer
  const V n = hn::Sub(hn::MulAdd(x, set(1.44269504f), rounder), rounder);
  V r = hn::MulAdd(n, set(-0.693359375f), x);
  r = hn::MulAdd(n, set(2.12194440e-4f), r);
  V p = set(1.9875691500e-4f);
  p = hn::MulAdd(p, r, set(1.3981999507e-3f));
  p = hn::MulAdd(p, r, set(8.3334519073e-3f));
  p = hn::MulAdd(p, r, set(4.1665795894e-2f));
  p = hn::MulAdd(p, r, set(1.6666665459e-1f));
  p = hn::MulAdd(p, r, set(5.0000001201e-1f));
  const V y = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), set(1.0f));
  const auto power = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127)));
  return hn::Mul(y, hn::BitCast(d, power));
}

// tanh (Cephes' tanhf): a polynomial near 0, else by exp.
HWY_INLINE V tanh(V x) {
  const auto set = [](float value) { return hn::Set(d, value); };
  const V size = hn::Abs(x), z = hn::Mul(x, x);
  V p = set(-5.70498872745e-3f);
  p = hn::MulAdd(p, z, set(2.06390887954e-2f));
  p = hn::MulAdd(p, z, set(-5.37397155531e-2f));
  p = hn::MulAdd(p, z, set(1.33314422036e-1f));
  p = hn::MulAdd(p, z, set(-3.33332819422e-1f));
  const V near = hn::MulAdd(hn::Mul(p, z), x, x);
  const V far = hn::Sub(set(1.0f), hn::Div(set(2.0f), hn::Add(exp(hn::Add(size, size)), set(1.0f))));
  return hn::IfThenElse(hn::Lt(size, set(0.625f)), near, hn::CopySign(far, x));
}

// 0.5 erfc(-x / sqrt(2)), the normal distribution's cumulative function (Cephes' erff and erfcf): accurate of its own
// size on both sides.
HWY_INLINE V normal(V x) {
  const auto set = [](double value) { return hn::Set(d, float(value)); };
  const auto polynomial = [&](V at, std::initializer_list<double> coefficients) HWY_ATTR {
    V p = hn::Zero(d);
    for (const double c : coefficients) p = hn::MulAdd(p, at, set(c));
    return p;
  };
  const V t = hn::Mul(x, set(0.70710678118654752)), size = hn::Abs(t), z = hn::Mul(t, t);
  const V near = hn::Mul(
      t, polynomial(z, {7.853861353153693e-5, -8.010193625184903e-4, 5.188327685732524e-3, -2.685381193529856e-2,
                        1.128358514861418e-1, -3.761262582423300e-1, 1.128379165726710}));
  const V q = hn::Div(set(1), hn::Max(size, set(1))), y = hn::Mul(q, q);
  const V below2 = polynomial(y, {2.326819970068386e-2, -1.387039388740657e-1, 3.687424674597105e-1,
                                  -5.824733027278666e-1, 6.210004621745983e-1, -4.944515323274145e-1,
                                  3.404879937665872e-1, -2.741127028184656e-1, 5.638259427386472e-1});
  const V from2 =
      polynomial(y, {-1.047766399936249e+1, 1.297719955372516e+1, -7.495518717768503, 2.921019019210786,
                     -1.015265279202700, 4.218463358204948e-1, -2.820767439740514e-1, 5.641895067754075e-1});
  const V tail = hn::Mul(hn::Mul(exp(hn::Neg(z)), q), hn::IfThenElse(hn::Lt(size, set(2)), below2, from2));
  const V far = hn::Mul(set(0.5), hn::IfThenElse(hn::Lt(t, set(0)), tail, hn::Sub(set(2), tail)));
  return hn::IfThenElse(hn::Lt(size, set(1)), hn::MulAdd(set(0.5), near, set(0.5)), far);
}

// Up to a vector of `left` numbers; lanes beyond are 0, or are not written.
HWY_INLINE V load_some(const float* from, int64_t left) {
  return left >= kLanes ? hn::LoadU(d, from) : hn::MaskedLoad(hn::FirstN(d, size_t(left)), d, from);
}
HWY_INLINE void store_some(V v, float* to, int64_t left) {
  if (left >= kLanes)
    hn::StoreU(v, d, to);
  else
    hn::BlendedStore(v, hn::FirstN(d, size_t(left)), d, to);
}

// The sum of 32 numbers, aligned to 32 bytes: quarters, then halves are added to each other, whatever the width of a
// vector.
HWY_INLINE float sum32(const float* v) {
  const hn::FixedTag<float, 8> d8;
  const hn::FixedTag<float, 4> d4;
  const auto part = [&](int64_t i) { return hn::Load(d8, v + 8 * i); };
  const auto eight = hn::Add(hn::Add(part(0), part(2)), hn::Add(part(1), part(3)));
  const auto four = hn::Add(hn::LowerHalf(d4, eight), hn::UpperHalf(d4, eight));
  HWY_ALIGN float lanes[4];
  hn::Store(four, d4, lanes);
  return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

// 32 sums side by side, of the numbers i, i + 32, i + 64, … of a row: what they add up to does not depend on the width
// of a vector either.
constexpr int64_t kSums = 32 / kLanes;
struct Sums {
  V part[kSums];
  HWY_INLINE Sums() {
    for (auto& p : part) p = hn::Zero(d);
  }
  HWY_INLINE float total() const {
    HWY_ALIGN float all[32];
    for (int64_t i = 0; i < kSums; ++i) hn::Store(part[i], d, all + i * kLanes);
    return sum32(all);
  }
};

// Calls f(i, left, sum) for each vector of a row of n numbers; sum: which of kSums it belongs to.
template <class F>
HWY_INLINE void each_vector(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + 32 <= n; i += 32)
#pragma GCC unroll 4
    for (int64_t s = 0; s < kSums; ++s) f(i + s * kLanes, kLanes, s);
  for (int64_t s = 0; i < n; i += kLanes, ++s) f(i, n - i, s);
}

// The sum of f(i, left) over a row of n numbers; lanes beyond do not count.
template <class F>
HWY_INLINE float sum_of(int64_t n, const F& f) {
  Sums sums;
  each_vector(n, [&](int64_t i, int64_t left, int64_t s) HWY_ATTR {
    const V v = f(i, left);
    sums.part[s] = hn::Add(sums.part[s], left >= kLanes ? v : hn::IfThenElseZero(hn::FirstN(d, size_t(left)), v));
  });
  return sums.total();
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
HWY_AFTER_NAMESPACE();
#endif  // toggled
