// What products are made of beside tile-inl.h: the left side packed, and a part of the result computed panel by panel
// of columns, whose right side the caller packs.
#include "product.h"
#include "scratch.h"
#include "tile-inl.h"

#if defined(DSE_CPU_PANEL_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef DSE_CPU_PANEL_INL
#undef DSE_CPU_PANEL_INL
#else
#define DSE_CPU_PANEL_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace cpu {
namespace HWY_NAMESPACE {

constexpr int64_t kDepth = kWidest;  // of a packed block

HWY_INLINE void fetch_step(const float* from) {
  for (int64_t i = 0; i < kLanes * kStep; i += 16) fetch(from + i);
}

// to [depth, kColumns] = columns of `from`, whose rows [column, k] are dense along k.
HWY_INLINE void pack_transposed(const float* from, int64_t stride, int64_t depth, int64_t columns,
                                float* HWY_RESTRICT to) {
  int64_t k = 0;
  for (; columns == kColumns && k + kStep <= depth; k += kStep)
    for (int64_t n = 0; n < kColumns; n += kLanes)
      transpose_step([&](int64_t row) { return from + (n + row) * stride + k; }, to + k * kColumns + n, kColumns);
  for (; k < depth; ++k)
    for (int64_t n = 0; n < kColumns; ++n) to[k * kColumns + n] = n < columns ? from[n * stride + k] : 0.0f;
}

inline int64_t depth_blocks(int64_t inner) { return (inner + kDepth - 1) / kDepth; }
inline int64_t block_floats(int64_t rows) { return (rows + kRows - 1) / kRows * kRows * kRowStride; }

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

// Bias and residual of a panel whose sums are whole.
HWY_INLINE void finish_panel(const Product& p, const ProductPart& part, int64_t panel) {
  if (!p.bias && !p.residual) return;
  const int64_t column = panel * kColumns, columns = std::min(kColumns, p.columns - column);
  for (int64_t r = 0; r < part.rows; ++r) finish_row(p, part.row + r, column, columns);
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

// Without an inner dimension: what the sums begin with.
HWY_INLINE void multiply_nothing(const Product& p, const ProductPart& part) {
  const int64_t begin = part.first * kColumns, end = std::min(part.last * kColumns, p.columns);
  for (int64_t r = 0; r < part.rows && !p.accumulate; ++r)
    std::fill_n(p.c + (part.row + r) * p.c_stride + begin, end - begin, 0.0f);
  for (int64_t panel = part.first; panel < part.last; ++panel) finish_panel(p, part, panel);
}

// A block of packed A stays in the second level of the cache while panels of B go by.
constexpr int64_t kPackedA = 96 * 1024;  // floats

// pack_b(panel, k, depth, to): to [depth, kColumns], aligned to a vector, becomes those of B; columns beyond B's are 0.
template <class PackB>
HWY_INLINE void multiply_panels(const Product& p, const ProductPart& part, const PackB& pack_b) {
  if (p.inner == 0) return multiply_nothing(p, part);
  const bool k_major = p.a.column != 1;
  const int64_t blocks = depth_blocks(p.inner), floats = block_floats(part.rows);
  const int64_t together = std::clamp<int64_t>(kPackedA / floats, 1, blocks);
  float* const b = scratch(kDepth * kColumns + together * floats, 0);
  float* const a = b + kDepth * kColumns;
  const auto depth_of = [&](int64_t block) { return std::min(kDepth, p.inner - block * kDepth); };
  for (int64_t first = 0; first < blocks; first += together) {
    const int64_t last = std::min(blocks, first + together);
    for (int64_t block = first; block < last; ++block)
      pack_a(p.a, part.row, part.rows, block * kDepth, depth_of(block), k_major, a + (block - first) * floats);
    for (int64_t panel = part.first; panel < part.last; ++panel) {
      for (int64_t block = first; block < last; ++block) {
        const int64_t k = block * kDepth, depth = depth_of(block);
        pack_b(panel, k, depth, b);
        const float* packed = a + (block - first) * floats;
        if (k_major)
          multiply_panel<true>(p, part, panel, k, depth, packed, b);
        else
          multiply_panel<false>(p, part, panel, k, depth, packed, b);
      }
      if (last == blocks) finish_panel(p, part, panel);
    }
  }
}

// The rows of A that are dense along k, all blocks of k of them, floats apart as block_floats says; and behind them,
// aligned, room for `beside` floats.
struct PackedRows {
  const float* a;
  float* beside;
};
HWY_INLINE PackedRows pack_few(const Product& p, const ProductPart& part, int64_t beside) {
  const int64_t blocks = depth_blocks(p.inner), floats = block_floats(part.rows);
  float* const a = scratch(blocks * floats + beside, 0);
  for (int64_t block = 0; block < blocks; ++block)
    pack_a(p.a, part.row, part.rows, block * kDepth, std::min(kDepth, p.inner - block * kDepth), false,
           a + block * floats);
  return {a, a + blocks * floats};
}

// So many rows' sums of a vector of columns stay in registers while B goes by once, laid out on the way: of few rows,
// reading it is the work. Of more, the first block of rows keeps what was laid out for the others. AVX2, where a
// broadcast is an instruction of its own, then multiplies faster in tiles of two vectors.
constexpr int64_t kRowsInRegisters = kLanes >= 16 ? 28 : 12;
constexpr int64_t kSomeRows = kLanes >= 16 ? INT64_MAX : 2 * kRowsInRegisters;
constexpr int64_t kWholeA = 1024 * 1024;  // floats of A's rows, all of k, that are read for each vector of columns

// a: pack_few's, `block` floats apart. columns.step(k, to): to [kStep, kLanes] becomes B's at k and after; one(k, to):
// [kLanes], at k. kept [inner, kLanes]: where they are left, or null; from_kept: they are there.
template <int R, bool from_kept, class Columns>
HWY_NOINLINE void multiply_few(const float* HWY_RESTRICT a, int64_t block, Columns columns, int64_t inner, float* kept,
                               float* HWY_RESTRICT c, int64_t c_stride, bool from_zero) {
  HWY_ALIGN float step[kStep * kLanes];
  V sums[R];
#pragma GCC unroll 28
  for (int r = 0; r < R; ++r) sums[r] = from_zero ? hn::Zero(d) : hn::LoadU(d, c + r * c_stride);
  for (int64_t first = 0; first < inner; first += kDepth, a += block) {
    const int64_t depth = std::min(kDepth, inner - first);
    const auto add = [&](int64_t k, const float* from) HWY_ATTR {
      const V v = hn::Load(d, from);
#pragma GCC unroll 28
      for (int r = 0; r < R; ++r) sums[r] = hn::MulAdd(hn::Set(d, a[r * kRowStride + k]), v, sums[r]);
    };
    const auto place = [&](int64_t k) { return kept ? kept + (first + k) * kLanes : step; };
    if constexpr (from_kept) {
#pragma GCC unroll 4
      for (int64_t k = 0; k < depth; ++k) add(k, place(k));
      continue;
    }
    int64_t k = 0;
    for (; k + kStep <= depth; k += kStep) {
      float* to = place(k);
      columns.step(first + k, to);
#pragma GCC unroll 4
      for (int64_t i = 0; i < kStep; ++i) add(k + i, to + i * kLanes);
    }
    for (; k < depth; ++k) {
      float* to = place(k);
      columns.one(first + k, to);
      add(k, to);
    }
  }
#pragma GCC unroll 28
  for (int r = 0; r < R; ++r) hn::StoreU(sums[r], d, c + r * c_stride);
}

template <bool from_kept, class Columns, int... R>
auto multiply_few_of(int64_t rows, std::integer_sequence<int, R...>) {
  using Multiply = void (*)(const float*, int64_t, Columns, int64_t, float*, float*, int64_t, bool);
  static constexpr Multiply all[] = {&multiply_few<R + 1, from_kept, Columns>...};
  return all[rows - 1];
}

// Computes the panel that B's columns end in, where it is one of the part's; returns the others.
template <class PackB>
HWY_INLINE ProductPart without_edge(const Product& p, const ProductPart& part, const PackB& pack_b) {
  const int64_t whole = std::clamp(p.columns / kColumns, part.first, part.last);
  if (whole < part.last) multiply_panels(p, {part.row, part.rows, whole, part.last}, pack_b);
  return {part.row, part.rows, part.first, whole};
}

// A's rows are dense along k. columns_at(column) are the `Columns` of multiply_few from that column on, a vector of
// them; pack_b as of multiply_panels.
template <class ColumnsAt, class PackB>
HWY_INLINE void multiply_columns(const Product& p, const ProductPart& part, const ColumnsAt& columns_at,
                                 const PackB& pack_b) {
  using Columns = decltype(columns_at(0));
  constexpr auto all = std::make_integer_sequence<int, int(kRowsInRegisters)>();
  const int64_t floats = block_floats(part.rows);
  if (part.rows > kSomeRows || depth_blocks(p.inner) * floats > kWholeA || p.inner == 0)
    return multiply_panels(p, part, pack_b);
  const int64_t whole = without_edge(p, part, pack_b).last;
  if (part.first == whole) return;
  const int64_t blocks = (part.rows + kRowsInRegisters - 1) / kRowsInRegisters,
                each = (part.rows + blocks - 1) / blocks;
  const auto [a, beside] = pack_few(p, part, blocks > 1 ? p.inner * kLanes : 0);
  float* const kept = blocks > 1 ? beside : nullptr;
  for (int64_t panel = part.first; panel < whole; ++panel) {
    for (int64_t column = panel * kColumns; column < (panel + 1) * kColumns; column += kLanes) {
      const Columns columns = columns_at(column);
      for (int64_t row = 0; row < part.rows; row += each) {
        const int64_t rows = std::min(each, part.rows - row);
        const auto multiply =
            row == 0 ? multiply_few_of<false, Columns>(rows, all) : multiply_few_of<true, Columns>(rows, all);
        multiply(a + row * kRowStride, floats, columns, p.inner, kept, p.c + (part.row + row) * p.c_stride + column,
                 p.c_stride, !p.accumulate);
      }
    }
    finish_panel(p, part, panel);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
HWY_AFTER_NAMESPACE();
#endif  // toggled
