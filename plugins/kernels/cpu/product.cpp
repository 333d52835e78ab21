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
