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

}  // namespace HWY_NAMESPACE
}  // namespace cpu
HWY_AFTER_NAMESPACE();
#endif  // toggled
