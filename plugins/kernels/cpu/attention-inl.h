// What attention and its backward share, once for each instruction set; included as tile-inl.h is.
#if defined(DSE_CPU_ATTENTION_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef DSE_CPU_ATTENTION_INL_H
#undef DSE_CPU_ATTENTION_INL_H
#else
#define DSE_CPU_ATTENTION_INL_H
#endif

#include <algorithm>
#include <cstring>
#include <utility>

#include "attention.h"
#include "tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cpu {
namespace HWY_NAMESPACE {

HWY_INLINE int64_t padded(int64_t width) { return (width + kColumns - 1) / kColumns * kColumns; }

// C [rows, columns] += A [rows, depth] B [depth, columns], columns a multiple of kColumns; A's rows are kRowStride
// apart, or a tile's scores, or those across.
enum class Left { rows, scores, scores_across };
template <Left left>
HWY_INLINE void multiply(int64_t rows, const float* a, const float* b, int64_t b_stride, int64_t depth, float* c,
                         int64_t c_stride, int64_t columns, bool from_zero) {
  constexpr int64_t row = left == Left::rows ? kRowStride : left == Left::scores ? kKeys : 1;
  constexpr int64_t column = left == Left::scores_across ? kKeys : 1;
  for (int64_t r = 0; r < rows; r += kRows)
    for (int64_t n = 0; n < columns; n += kColumns)
      multiply_tile<row, column>(std::min(kRows, rows - r), a + r * row, b + n, b_stride, depth, c + r * c_stride + n,
                                 c_stride, from_zero);
}

// to [width, kKeys] = kKeys rows, transposed.
HWY_INLINE void pack_across(const float* const* rows, int64_t width, float* to) {
  int64_t i = 0;
  for (; i + kStep <= width; i += kStep)
    for (int64_t n = 0; n < kKeys; n += kLanes)
      transpose_step([&](int64_t row) { return rows[n + row] + i; }, to + i * kKeys + n, kKeys);
  for (; i < width; ++i)
    for (int64_t n = 0; n < kKeys; ++n) to[i * kKeys + n] = rows[n][i];
}

// to [count, …] = rows, `stride` apart, filled up with zeros to `columns`.
HWY_INLINE void pack_along(const float* const* rows, int64_t count, int64_t width, int64_t stride, int64_t columns,
                           float* to) {
  for (int64_t r = 0; r < count; ++r, to += stride) {
    std::memcpy(to, rows[r], size_t(width) * sizeof(float));
    std::fill(to + width, to + columns, 0.0f);
  }
}

// Where a tile's keys, or values, of a head stand.
HWY_INLINE void place(const Heads& heads, const int64_t* key_rows, int64_t kv, const float** places) {
  for (int64_t j = 0; j < kKeys; ++j) places[j] = heads.row(key_rows[j], kv);
}

// A tile's scores of one query: scaled, capped, and kLowest outside of keys [first, last) of it.
HWY_INLINE void finish_scores(const Scores& scores, int64_t first, int64_t last, float* s) {
  const V scale = hn::Set(d, scores.scale), cap = hn::Set(d, scores.cap);
  for (int64_t i = 0; i < kKeys; i += kLanes) {
    V v = hn::Mul(hn::Load(d, s + i), scale);
    if (scores.cap > 0) v = hn::Mul(tanh(hn::Div(v, cap)), cap);
    const V key = hn::Iota(d, float(i));
    const auto seen = hn::And(hn::Ge(key, hn::Set(d, float(first))), hn::Lt(key, hn::Set(d, float(last))));
    hn::Store(hn::IfThenElse(seen, v, hn::Set(d, kLowest)), d, s + i);
  }
}

// The keys of a tile that a query sees, of those from `tile` on: [first, last).
HWY_INLINE std::pair<int64_t, int64_t> seen_of(const Scores& scores, int64_t own, int64_t tile) {
  return {std::clamp<int64_t>(scores.first_key(own) - tile, 0, kKeys), std::clamp<int64_t>(own + 1 - tile, 0, kKeys)};
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
HWY_AFTER_NAMESPACE();
#endif  // toggled
