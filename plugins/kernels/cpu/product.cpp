#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "product.cpp"
#include "targets.h"
// after targets.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "panel-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cpu {
namespace HWY_NAMESPACE {

HWY_INLINE void pack_rows(const float* from, int64_t stride, int64_t depth, int64_t columns, float* HWY_RESTRICT to) {
  for (int64_t k = 0; k < depth; ++k, from += stride, to += kColumns) {
    if (columns == kColumns) {
#pragma GCC unroll 2
      for (int64_t v = 0; v < kVectors; ++v) hn::Store(hn::LoadU(d, from + v * kLanes), d, to + v * kLanes);
    } else {
      std::memcpy(to, from, size_t(columns) * sizeof(float));
      std::memset(to + columns, 0, size_t(kColumns - columns) * sizeof(float));
    }
  }
}

// At so few rows a panel's sums stay in registers while B goes by once, transposed on the way: reading it is the work.
constexpr int64_t kFewRows = kLanes >= 16 ? 28 : 12;

// A panel of columns, whole. a: pack_few's, `block` floats apart; b: rows [column, k]. next: the panel that is
// wanted after it, or null.
template <int R>
HWY_NOINLINE void multiply_few(const float* HWY_RESTRICT a, int64_t block, const float* b, int64_t b_stride,
                               int64_t inner, const float* next, float* HWY_RESTRICT c, int64_t c_stride,
                               bool from_zero) {
  HWY_ALIGN float step[kStep * kLanes];
  for (int64_t n = 0; n < kColumns; n += kLanes, b += kLanes * b_stride) {
    V sums[R];
#pragma GCC unroll 28
    for (int r = 0; r < R; ++r) sums[r] = from_zero ? hn::Zero(d) : hn::LoadU(d, c + r * c_stride + n);
    for (int64_t first = 0; first < inner; first += kDepth) {
      const int64_t depth = std::min(kDepth, inner - first);
      const float *as = a + first / kDepth * block, *bs = b + first;
      const auto add = [&](int64_t k, V v) HWY_ATTR {
#pragma GCC unroll 28
        for (int r = 0; r < R; ++r) sums[r] = hn::MulAdd(hn::Set(d, as[r * kRowStride + k]), v, sums[r]);
      };
      int64_t k = 0;
      for (; k + kStep <= depth; k += kStep) {
        if (next) fetch_step(next + n * inner + (first + k) * kLanes);
        transpose_step([&](int64_t i) { return bs + i * b_stride + k; }, step, kLanes);
#pragma GCC unroll 4
        for (int64_t i = 0; i < kStep; ++i) add(k + i, hn::Load(d, step + i * kLanes));
      }
      for (; k < depth; ++k) {
        for (int64_t i = 0; i < kLanes; ++i) step[i] = bs[i * b_stride + k];
        add(k, hn::Load(d, step));
      }
    }
#pragma GCC unroll 28
    for (int r = 0; r < R; ++r) hn::StoreU(sums[r], d, c + r * c_stride + n);
  }
}

using MultiplyFew = void (*)(const float*, int64_t, const float*, int64_t, int64_t, const float*, float*, int64_t,
                             bool);
template <int... R>
MultiplyFew multiply_few_of(int64_t rows, std::integer_sequence<int, R...>) {
  static constexpr MultiplyFew all[] = {&multiply_few<R + 1>...};
  return all[rows - 1];
}

int64_t column_panels(int64_t columns) { return (columns + kColumns - 1) / kColumns; }
int64_t rows_of_part(int64_t rows) {
  constexpr int64_t most = kPackedA / kRowStride / kRows * kRows;
  const int64_t parts = (rows + most - 1) / most, each = (rows + parts - 1) / parts;
  return (each + kRows - 1) / kRows * kRows;
}

void multiply_part(const Product& p, const ProductPart& part) {
  const bool transposed = p.b.column != 1;
  // The panel after this one where so few rows make it worth asking for.
  const auto next_of = [&](int64_t panel) -> const float* {
    const bool wanted = transposed && (panel + 2) * kColumns <= p.columns && part.rows <= kFewRows;
    return wanted ? p.b.data + (panel + 1) * kColumns * p.b.column : nullptr;
  };
  const auto pack_b = [&](int64_t panel, int64_t k, int64_t depth, float* to) HWY_ATTR {
    const int64_t column = panel * kColumns, columns = std::min(kColumns, p.columns - column);
    if (!transposed) return pack_rows(p.b.data + k * p.b.row + column, p.b.row, depth, columns, to);
    const float* next = next_of(panel);
    pack_transposed(p.b.data + column * p.b.column + k, p.b.column, depth, columns,
                    next ? next + k * kColumns : nullptr, to);
  };
  if (part.rows > kFewRows || p.a.column != 1 || !transposed || p.inner == 0) return multiply_panels(p, part, pack_b);
  const int64_t whole = std::min(part.last, p.columns / kColumns);
  const float* a = pack_few(p, part);
  const auto multiply = multiply_few_of(part.rows, std::make_integer_sequence<int, int(kFewRows)>());
  for (int64_t panel = part.first; panel < whole; ++panel) {
    const int64_t column = panel * kColumns;
    multiply(a, block_floats(part.rows), p.b.data + column * p.b.column, p.b.column, p.inner, next_of(panel),
             p.c + part.row * p.c_stride + column, p.c_stride, !p.accumulate);
    finish_panel(p, part, panel);
  }
  if (whole < part.last) multiply_panels(p, {part.row, part.rows, std::max(part.first, whole), part.last}, pack_b);
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels.h"

namespace cpu {

HWY_EXPORT(column_panels);
HWY_EXPORT(rows_of_part);
HWY_EXPORT(multiply_part);

void each_part(const Product& p, const std::function<void(const Product&, const ProductPart&)>& multiply) {
  if (p.rows == 0 || p.columns == 0) return;
  const int64_t panels = HWY_DYNAMIC_DISPATCH(column_panels)(p.columns),
                rows = HWY_DYNAMIC_DISPATCH(rows_of_part)(p.rows);
  const int64_t parts = (p.rows + rows - 1) / rows;
  // Tasks go along the panels of one block of rows, then the next block's.
  dse::parallel_for(0, parts * panels, 1, [&](int64_t first, int64_t last) {
    while (first < last) {
      const int64_t part = first / panels, panel = first % panels, count = std::min(last - first, panels - panel);
      multiply(p, {part * rows, std::min(rows, p.rows - part * rows), panel, panel + count});
      first += count;
    }
  });
}

void product(const Product& p) { each_part(p, HWY_DYNAMIC_DISPATCH(multiply_part)); }

void product_here(const Product& p) {
  if (p.rows == 0 || p.columns == 0) return;
  HWY_DYNAMIC_DISPATCH(multiply_part)(p, {0, p.rows, 0, HWY_DYNAMIC_DISPATCH(column_panels)(p.columns)});
}

}  // namespace cpu
#endif
