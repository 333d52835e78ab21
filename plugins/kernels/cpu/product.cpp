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

// So many rows' sums of a vector of columns stay in registers while B goes by once, transposed on the way: of few rows,
// reading it is the work. Of more, the first block of rows keeps what it has transposed for the others. AVX2, where a
// broadcast is an instruction of its own, then multiplies faster in tiles of two vectors.
constexpr int64_t kFewRows = kLanes >= 16 ? 28 : 12;
constexpr int64_t kSomeRows = kLanes >= 16 ? INT64_MAX : 2 * kFewRows;
constexpr int64_t kWholeA = 1024 * 1024;  // floats of A's rows, all of k, that are read for each vector of columns

// The columns of B that one vector holds, its rows [column, k]: where they stand, or kept, [k, kLanes].
struct FewColumns {
  const float* b;
  int64_t stride, inner;
  const float* next;  // what is wanted after them, or null
  float* kept;        // [inner, kLanes], or null where one block of rows is all there is
};

// a: pack_few's, `block` floats apart. Whether the columns are kept already.
template <int R, bool from_kept>
HWY_NOINLINE void multiply_few(const float* HWY_RESTRICT a, int64_t block, const FewColumns& columns,
                               float* HWY_RESTRICT c, int64_t c_stride, bool from_zero) {
  HWY_ALIGN float step[kStep * kLanes];
  V sums[R];
#pragma GCC unroll 28
  for (int r = 0; r < R; ++r) sums[r] = from_zero ? hn::Zero(d) : hn::LoadU(d, c + r * c_stride);
  for (int64_t first = 0; first < columns.inner; first += kDepth) {
    const int64_t depth = std::min(kDepth, columns.inner - first);
    const float* as = a + first / kDepth * block;
    float* const kept = columns.kept ? columns.kept + first * kLanes : nullptr;
    const auto add = [&](int64_t k, V v) HWY_ATTR {
#pragma GCC unroll 28
      for (int r = 0; r < R; ++r) sums[r] = hn::MulAdd(hn::Set(d, as[r * kRowStride + k]), v, sums[r]);
    };
    if constexpr (from_kept) {
#pragma GCC unroll 4
      for (int64_t k = 0; k < depth; ++k) add(k, hn::Load(d, kept + k * kLanes));
      continue;
    }
    const float* bs = columns.b + first;
    int64_t k = 0;
    for (; k + kStep <= depth; k += kStep) {
      float* to = kept ? kept + k * kLanes : step;
      if (columns.next) fetch_step(columns.next + (first + k) * kLanes);
      transpose_step([&](int64_t i) { return bs + i * columns.stride + k; }, to, kLanes);
#pragma GCC unroll 4
      for (int64_t i = 0; i < kStep; ++i) add(k + i, hn::Load(d, to + i * kLanes));
    }
    for (; k < depth; ++k) {
      float* to = kept ? kept + k * kLanes : step;
      for (int64_t i = 0; i < kLanes; ++i) to[i] = bs[i * columns.stride + k];
      add(k, hn::Load(d, to));
    }
  }
#pragma GCC unroll 28
  for (int r = 0; r < R; ++r) hn::StoreU(sums[r], d, c + r * c_stride);
}

using MultiplyFew = void (*)(const float*, int64_t, const FewColumns&, float*, int64_t, bool);
template <bool from_kept, int... R>
MultiplyFew multiply_few_of(int64_t rows, std::integer_sequence<int, R...>) {
  static constexpr MultiplyFew all[] = {&multiply_few<R + 1, from_kept>...};
  return all[rows - 1];
}

// Panels [part.first, whole), none of which B's columns end in.
void multiply_few_panels(const Product& p, const ProductPart& part, int64_t whole) {
  constexpr auto all = std::make_integer_sequence<int, int(kFewRows)>();
  const int64_t blocks = (part.rows + kFewRows - 1) / kFewRows, floats = block_floats(part.rows);
  const int64_t each = (part.rows + blocks - 1) / blocks;
  const auto [a, beside] = pack_few(p, part, blocks > 1 ? p.inner * kLanes : 0);
  float* const kept = blocks > 1 ? beside : nullptr;
  for (int64_t panel = part.first; panel < whole; ++panel) {
    for (int64_t column = panel * kColumns; column < (panel + 1) * kColumns; column += kLanes) {
      const float* b = p.b.data + column * p.b.column;
      const bool more = column + kColumns + kLanes <= p.columns;
      const FewColumns columns{b, p.b.column, p.inner, more ? b + kColumns * p.b.column : nullptr, kept};
      for (int64_t row = 0; row < part.rows; row += each) {
        const int64_t rows = std::min(each, part.rows - row);
        const auto multiply = row == 0 ? multiply_few_of<false>(rows, all) : multiply_few_of<true>(rows, all);
        multiply(a + row * kRowStride, floats, columns, p.c + (part.row + row) * p.c_stride + column, p.c_stride,
                 !p.accumulate);
      }
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
  const bool fits = part.rows <= kSomeRows && depth_blocks(p.inner) * block_floats(part.rows) <= kWholeA;
  if (!fits || p.a.column != 1 || !transposed || p.inner == 0) return multiply_panels(p, part, pack_b);
  const int64_t whole = std::min(part.last, p.columns / kColumns);
  multiply_few_panels(p, part, whole);
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
