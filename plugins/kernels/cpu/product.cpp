#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "product.cpp"
#include "targets.h"
// after targets.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

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

// The columns of B that a vector holds, where its rows [column, k] are dense along k.
struct TransposedColumns {
  const float* b;
  int64_t stride;
  const float* next;  // what is wanted after them, or null
  HWY_INLINE void step(int64_t k, float* to) {
    if (next) fetch_step(next + k * kLanes);
    transpose_step([&](int64_t i) { return b + i * stride + k; }, to, kLanes);
  }
  HWY_INLINE void one(int64_t k, float* to) {
    for (int64_t i = 0; i < kLanes; ++i) to[i] = b[i * stride + k];
  }
};

// Rows that fill a vector, or half of one, go across its lanes: then B is read as it stands, and each of its numbers is
// multiplied with all rows at once.
using HalfTag = hn::CappedTag<float, size_t(kLanes / 2)>;
constexpr int64_t kTile = kLanes;  // columns
constexpr int64_t kTogether = 4;   // k, after which the tile's next column is turned to

// to [inner, kLanes]: rows that A does not have are its last once more.
HWY_INLINE void lay_across(const Strided& a, int64_t row, int64_t rows, int64_t inner, float* HWY_RESTRICT to) {
  const auto row_at = [&](int64_t i) { return a.data + (row + std::min(i, rows - 1)) * a.row; };
  int64_t k = 0;
  for (; k + kStep <= inner; k += kStep)
    transpose_step([&](int64_t i) { return row_at(i) + k; }, to + k * kLanes, kLanes);
  for (; k < inner; ++k)
    for (int64_t i = 0; i < kLanes; ++i) to[k * kLanes + i] = row_at(i)[k];
}

// A tile of kTile columns, of as many rows as A's tag `across` has lanes or fewer. a: lay_across's. b: rows
// [column, k]; next: the tile that is wanted after it, or null.
template <class Across>
HWY_NOINLINE void multiply_across(const float* HWY_RESTRICT a, const float* b, int64_t b_stride, int64_t inner,
                                  const float* next, int64_t rows, float* HWY_RESTRICT c, int64_t c_stride,
                                  bool from_zero) {
  constexpr Across across;
  HWY_ALIGN float tile[kTile * kLanes] = {}, turned[kTile * kLanes];  // [column, row], [row, column]
  hn::Vec<Across> sums[kTile];
  for (int64_t n = 0; n < kTile && !from_zero; ++n)
    for (int64_t r = 0; r < kLanes; ++r) tile[n * kLanes + r] = c[std::min(r, rows - 1) * c_stride + n];
#pragma GCC unroll 16
  for (int64_t n = 0; n < kTile; ++n) sums[n] = from_zero ? hn::Zero(across) : hn::Load(across, tile + n * kLanes);
  const auto add = [&](int64_t k, auto together) HWY_ATTR {
    constexpr int64_t count = decltype(together)::value;
    hn::Vec<Across> as[count];
#pragma GCC unroll 4
    for (int64_t i = 0; i < count; ++i) as[i] = hn::Load(across, a + (k + i) * kLanes);
    const float* from = b + k;
#pragma GCC unroll 16
    for (int64_t n = 0; n < kTile; ++n, from += b_stride)
#pragma GCC unroll 4
      for (int64_t i = 0; i < count; ++i) sums[n] = hn::MulAdd(hn::Set(across, from[i]), as[i], sums[n]);
  };
  int64_t k = 0;
  for (; k + kTogether <= inner; k += kTogether) {
    for (int64_t i = 0; next && i < kTile * kTogether; i += 16) fetch(next + k * kTile + i);
    add(k, std::integral_constant<int64_t, kTogether>());
  }
  for (; k < inner; ++k) add(k, std::integral_constant<int64_t, 1>());
#pragma GCC unroll 16
  for (int64_t n = 0; n < kTile; ++n) hn::Store(sums[n], across, tile + n * kLanes);
  transpose_step([&](int64_t n) { return tile + n * kLanes; }, turned, kTile);
  for (int64_t r = 0; r < rows; ++r) std::memcpy(c + r * c_stride, turned + r * kTile, kTile * sizeof(float));
}

// Up to a quarter of the lanes may be idle. Where B's rows lie a multiple of 2 KiB apart, a tile's meet in so few sets
// of the cache that they drive each other out.
bool goes_across(const Product& p, int64_t rows) {
  const int64_t lanes = rows <= kLanes / 2 ? kLanes / 2 : kLanes;
  return rows <= lanes && 4 * rows >= 3 * lanes && p.inner > 0 && (kTile < 16 || p.b.column % 512 != 0);
}

// Of whole panels.
void multiply_across_panels(const Product& p, const ProductPart& part) {
  if (part.first == part.last) return;
  float* const a = scratch(p.inner * kLanes, 0);
  lay_across(p.a, part.row, part.rows, p.inner, a);
  const auto multiply = part.rows > kLanes / 2 ? multiply_across<D> : multiply_across<HalfTag>;
  for (int64_t panel = part.first; panel < part.last; ++panel) {
    for (int64_t column = panel * kColumns; column < (panel + 1) * kColumns; column += kTile) {
      const float* b = p.b.data + column * p.b.column;
      const bool more = column + 2 * kTile <= p.columns;
      multiply(a, b, p.b.column, p.inner, more ? b + kTile * p.b.column : nullptr, part.rows,
               p.c + part.row * p.c_stride + column, p.c_stride, !p.accumulate);
    }
    finish_panel(p, part, panel);
  }
}

int64_t column_panels(int64_t columns) { return (columns + kColumns - 1) / kColumns; }
int64_t rows_of_part(int64_t rows) {
  constexpr int64_t most = kPackedA / kRowStride / kRows * kRows;
  const int64_t parts = (rows + most - 1) / most, each = (rows + parts - 1) / parts;
  return (each + kRows - 1) / kRows * kRows;
}

void multiply_part(const Product& p, const ProductPart& part) {
  const bool transposed = p.b.column != 1;
  const auto pack_b = [&](int64_t panel, int64_t k, int64_t depth, float* to) HWY_ATTR {
    const int64_t column = panel * kColumns, columns = std::min(kColumns, p.columns - column);
    if (!transposed) return pack_rows(p.b.data + k * p.b.row + column, p.b.row, depth, columns, to);
    pack_transposed(p.b.data + column * p.b.column + k, p.b.column, depth, columns, to);
  };
  if (p.a.column != 1 || !transposed) return multiply_panels(p, part, pack_b);
  if (goes_across(p, part.rows)) return multiply_across_panels(p, without_edge(p, part, pack_b));
  const auto columns_at = [&](int64_t column) {
    const float* b = p.b.data + column * p.b.column;
    const bool more = column + kColumns + kLanes <= p.columns;
    return TransposedColumns{b, p.b.column, more ? b + kColumns * p.b.column : nullptr};
  };
  multiply_columns(p, part, columns_at, pack_b);
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
