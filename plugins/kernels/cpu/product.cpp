#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "product.cpp"
#include "targets.h"
// after targets.h
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <algorithm>
#include <cstring>

#include "product.h"
#include "scratch.h"
#include "tile-inl.h"

#ifndef DSE_CPU_PRODUCT_SHARED
#define DSE_CPU_PRODUCT_SHARED
namespace cpu {

// Part of a product that one thread computes: panels [first, last) of columns, of the rows [row, row + rows).
struct ProductPart {
  int64_t row, rows, first, last;
};

}  // namespace cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace cpu {
namespace HWY_NAMESPACE {

constexpr int64_t kDepth = kWidest;  // of a packed block

// to [depth, kColumns] = columns of `from`, whose rows [column, k] are dense along k. next: what is wanted after it.
HWY_INLINE void pack_transposed(const float* from, int64_t stride, int64_t depth, int64_t columns, const float* next,
                                float* HWY_RESTRICT to) {
  int64_t k = 0;
  for (; columns == kColumns && k + kStep <= depth; k += kStep) {
    if (next)
      for (int64_t i = 0; i < kColumns * kStep; i += 16) hwy::Prefetch(next + k * kColumns + i);
    for (int64_t n = 0; n < kColumns; n += kLanes)
      transpose_step([&](int64_t row) { return from + (n + row) * stride + k; }, to + k * kColumns + n, kColumns);
  }
  for (; k < depth; ++k)
    for (int64_t n = 0; n < kColumns; ++n) to[k * kColumns + n] = n < columns ? from[n * stride + k] : 0.0f;
}

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

// A's rows [row, row + rows), k in [first, first + depth), as tiles of kRows: dense along k, or across rows.
HWY_INLINE void pack_a(const Strided& a, int64_t row, int64_t rows, int64_t first, int64_t depth, bool k_major,
                       float* to) {
  if (!k_major) {
    for (int64_t r = 0; r < rows; ++r)
      std::memcpy(to + r * kRowStride, a.data + (row + r) * a.row + first, size_t(depth) * sizeof(float));
    return;
  }
  for (int64_t r = 0; r < rows; r += kRows, to += kRows * kRowStride) {
    const int64_t count = std::min(kRows, rows - r);
    const float* from = a.data + row + r + first * a.column;
    for (int64_t k = 0; k < depth; ++k, from += a.column)
      std::memcpy(to + k * kRows, from, size_t(count) * sizeof(float));
  }
}

HWY_INLINE void finish_row(const Product& p, int64_t row, int64_t column, int64_t count) {
  float* c = p.c + row * p.c_stride + column;
  if (p.bias)
    for (int64_t i = 0; i < count; ++i) c[i] += p.bias[column + i];
  if (p.residual)
    for (int64_t i = 0; i < count; ++i) c[i] += p.residual[row * p.c_stride + column + i];
}

// One panel of columns and a block of k of it: all rows of the part.
template <bool k_major>
HWY_INLINE void multiply_panel(const Product& p, const ProductPart& part, int64_t panel, int64_t k, int64_t depth,
                               const float* a, const float* b) {
  const int64_t column = panel * kColumns, columns = std::min(kColumns, p.columns - column);
  const bool from_zero = k == 0 && !p.accumulate;
  HWY_ALIGN float edge[kRows * kColumns];
  for (int64_t r = 0; r < part.rows; r += kRows, a += kRows * kRowStride) {
    const int64_t rows = std::min(kRows, part.rows - r);
    float* c = p.c + (part.row + r) * p.c_stride + column;
    const auto multiply = [&](float* to, int64_t stride) {
      if constexpr (k_major)
        multiply_tile<1, kRows>(rows, a, b, kColumns, depth, to, stride, from_zero);
      else
        multiply_tile<kRowStride, 1>(rows, a, b, kColumns, depth, to, stride, from_zero);
    };
    if (columns == kColumns) {
      multiply(c, p.c_stride);
      continue;
    }
    for (int64_t i = 0; i < rows && !from_zero; ++i)
      std::memcpy(edge + i * kColumns, c + i * p.c_stride, size_t(columns) * sizeof(float));
    multiply(edge, kColumns);
    for (int64_t i = 0; i < rows; ++i)
      std::memcpy(c + i * p.c_stride, edge + i * kColumns, size_t(columns) * sizeof(float));
  }
}

// Rows of which a panel's sums stay in registers while B goes by once, transposed on the way.
constexpr int64_t kFewRows = kLanes >= 16 ? 4 : 2;

template <int R>
HWY_INLINE void multiply_few(const Product& p, int64_t row, int64_t column, const float* next) {
  const float* a = p.a.data + row * p.a.row;
  const float* b = p.b.data + column * p.b.column;
  HWY_ALIGN float step[kStep * kLanes];
  for (int64_t n = 0; n < kColumns; n += kLanes, b += kLanes * p.b.column) {
    V sums[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
      sums[r] = p.accumulate ? hn::LoadU(d, p.c + (row + r) * p.c_stride + column + n) : hn::Zero(d);
    const auto add = [&](int64_t k, V bs) HWY_ATTR {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sums[r] = hn::MulAdd(hn::Set(d, a[r * p.a.row + k]), bs, sums[r]);
    };
    int64_t k = 0;
    for (; k + kStep <= p.inner; k += kStep) {
      if (next)
        for (int64_t i = 0; i < kLanes * kStep; i += 16) hwy::Prefetch(next + n * p.inner + k * kLanes + i);
      transpose_step([&](int64_t i) { return b + i * p.b.column + k; }, step, kLanes);
#pragma GCC unroll 16
      for (int64_t i = 0; i < kStep; ++i) add(k + i, hn::Load(d, step + i * kLanes));
    }
    for (; k < p.inner; ++k) {
      for (int64_t i = 0; i < kLanes; ++i) step[i] = b[i * p.b.column + k];
      add(k, hn::Load(d, step));
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) hn::StoreU(sums[r], d, p.c + (row + r) * p.c_stride + column + n);
  }
}

HWY_INLINE void multiply_few(const Product& p, const ProductPart& part, int64_t panel, const float* next) {
  switch (part.rows) {
    case 1:
      return multiply_few<1>(p, part.row, panel * kColumns, next);
    case 2:
      return multiply_few<2>(p, part.row, panel * kColumns, next);
    case 3:
      return multiply_few<3>(p, part.row, panel * kColumns, next);
    default:
      return multiply_few<4>(p, part.row, panel * kColumns, next);
  }
}

// A block of packed A stays in the second level of the cache while panels of B go by.
constexpr int64_t kPackedA = 96 * 1024;  // floats
int64_t column_panels(int64_t columns) { return (columns + kColumns - 1) / kColumns; }
int64_t rows_of_part(int64_t rows) {
  constexpr int64_t most = kPackedA / kRowStride / kRows * kRows;
  const int64_t parts = (rows + most - 1) / most, each = (rows + parts - 1) / parts;
  return (each + kRows - 1) / kRows * kRows;
}

void multiply_part(const Product& p, const ProductPart& part) {
  const bool k_major = p.a.column != 1, transposed = p.b.column != 1;
  const bool few = part.rows <= kFewRows && !k_major && transposed;
  const int64_t blocks = (p.inner + kDepth - 1) / kDepth;
  const int64_t block_floats = (part.rows + kRows - 1) / kRows * kRows * kRowStride;
  const int64_t together = std::clamp<int64_t>(kPackedA / block_floats, 1, std::max<int64_t>(1, blocks));
  float* const b = scratch(kDepth * kColumns + together * block_floats, 0);
  float* const a = b + kDepth * kColumns;
  const auto finish = [&](int64_t panel) {
    if (!p.bias && !p.residual) return;
    const int64_t column = panel * kColumns;
    for (int64_t r = 0; r < part.rows; ++r) finish_row(p, part.row + r, column, std::min(kColumns, p.columns - column));
  };
  if (p.inner == 0) {
    for (int64_t r = 0; r < part.rows && !p.accumulate; ++r)
      std::fill_n(p.c + (part.row + r) * p.c_stride + part.first * kColumns,
                  std::min(part.last * kColumns, p.columns) - part.first * kColumns, 0.0f);
    for (int64_t panel = part.first; panel < part.last; ++panel) finish(panel);
    return;
  }
  for (int64_t first = 0; first < blocks; first += together) {
    const int64_t last = std::min(blocks, first + together);
    const auto depth_of = [&](int64_t block) { return std::min(kDepth, p.inner - block * kDepth); };
    for (int64_t block = first; block < last; ++block)
      pack_a(p.a, part.row, part.rows, block * kDepth, depth_of(block), k_major, a + (block - first) * block_floats);
    for (int64_t panel = part.first; panel < part.last; ++panel) {
      const int64_t column = panel * kColumns, columns = std::min(kColumns, p.columns - column);
      const bool more = (panel + 2) * kColumns <= p.columns && part.rows <= kRows * 2;
      const float* next = more && transposed ? p.b.data + (column + kColumns) * p.b.column : nullptr;
      if (few && columns == kColumns) {
        if (first == 0) multiply_few(p, part, panel, next), finish(panel);
        continue;
      }
      for (int64_t block = first; block < last; ++block) {
        const int64_t k = block * kDepth, depth = depth_of(block);
        if (transposed) {
          const float* panel_begin = p.b.data + column * p.b.column;
          pack_transposed(panel_begin + k, p.b.column, depth, columns, next ? next + k * kColumns : nullptr, b);
        } else {
          pack_rows(p.b.data + k * p.b.row + column, p.b.row, depth, columns, b);
        }
        const float* packed = a + (block - first) * block_floats;
        if (k_major)
          multiply_panel<true>(p, part, panel, k, depth, packed, b);
        else
          multiply_panel<false>(p, part, panel, k, depth, packed, b);
      }
      if (last == blocks) finish(panel);
    }
  }
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

void product(const Product& p) {
  if (p.rows == 0 || p.columns == 0) return;
  const int64_t panels = HWY_DYNAMIC_DISPATCH(column_panels)(p.columns),
                rows = HWY_DYNAMIC_DISPATCH(rows_of_part)(p.rows);
  const int64_t parts = (p.rows + rows - 1) / rows;
  const auto multiply = HWY_DYNAMIC_DISPATCH(multiply_part);
  // Tasks go along the panels of one block of rows, then the next block's.
  dse::parallel_for(0, parts * panels, 1, [&](int64_t first, int64_t last) {
    while (first < last) {
      const int64_t part = first / panels, panel = first % panels, count = std::min(last - first, panels - panel);
      multiply(p, {part * rows, std::min(rows, p.rows - part * rows), panel, panel + count});
      first += count;
    }
  });
}

void product_here(const Product& p) {
  if (p.rows == 0 || p.columns == 0) return;
  HWY_DYNAMIC_DISPATCH(multiply_part)(p, {0, p.rows, 0, HWY_DYNAMIC_DISPATCH(column_panels)(p.columns)});
}

}  // namespace cpu
#endif
