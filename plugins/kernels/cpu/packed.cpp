// Linears whose weights a rollout reads narrower, in the catalogue's layouts. What they are is unpacked to float32 on
// the way, and summed as product.cpp sums: the bits are those of a product with the unpacked weights.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "packed.cpp"
#include "targets.h"
// after targets.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "packed.h"
#include "panel-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cpu {
namespace HWY_NAMESPACE {

// Of a panel of outputs, kColumns of them: w(k, v) are the weights at input k of the block that was opened, the v-th
// vector of outputs. kLine bytes hold an input's weights of kSide outputs; line(k) is where.
struct Bf16Panel {
  static constexpr int64_t kLine = 2 * kSide;
  const uint16_t *panel, *block = nullptr;
  Bf16Panel(const uint8_t* packed, int64_t inner, int64_t column)
      : panel(reinterpret_cast<const uint16_t*>(packed) + column / kSide * inner * kSide + column % kSide) {}
  HWY_INLINE void open(int64_t index) { block = panel + index * kSide * kSide; }
  HWY_INLINE const uint8_t* line(int64_t k) const { return reinterpret_cast<const uint8_t*>(panel + k * kSide); }
  HWY_INLINE V w(int64_t k, int64_t v) const {
    const hn::Rebind<uint16_t, D> narrow;
    const hn::RebindToUnsigned<D> bits;
    const auto wide = hn::PromoteTo(bits, hn::LoadU(narrow, block + k * kSide + v * kLanes));
    return hn::BitCast(d, hn::ShiftLeft<16>(wide));
  }
};

struct Int8Panel {
  static constexpr int64_t kLine = kSide;
  const uint8_t *panel, *block = nullptr;
  int64_t column;
  V scales[kVectors];
  Int8Panel(const uint8_t* packed, int64_t inner, int64_t first)
      : panel(packed + first / kSide * blocks_of(inner) * kBlockBytes), column(first % kSide) {}
  HWY_INLINE void open(int64_t index) {
    const hn::Rebind<hwy::float16_t, D> half;
    const uint8_t* from = panel + index * kBlockBytes;
    block = from + column;
    const auto* scale = reinterpret_cast<const hwy::float16_t*>(from + kSide * kSide) + column;
#pragma GCC unroll 2
    for (int64_t v = 0; v < kVectors; ++v) scales[v] = hn::PromoteTo(d, hn::LoadU(half, scale + v * kLanes));
  }
  HWY_INLINE const uint8_t* line(int64_t k) const { return panel + k / kSide * kBlockBytes + k % kSide * kSide; }
  HWY_INLINE V w(int64_t k, int64_t v) const {
    const hn::Rebind<int8_t, D> narrow;
    const hn::RebindToSigned<D> whole;
    const auto q = hn::LoadU(narrow, reinterpret_cast<const int8_t*>(block) + k * kSide + v * kLanes);
    return hn::Mul(scales[v], hn::ConvertTo(d, hn::PromoteTo(whole, q)));
  }
};

// What stands kSide outputs on, while the panel before it is read; at the end of them, this one again.
template <class Panel>
HWY_INLINE Panel next_panel(const Product& p, const uint8_t* packed, int64_t column) {
  column = column / kSide * kSide;
  return Panel(packed, p.inner, column + kSide < p.columns ? column + kSide : column);
}
template <class Panel>
HWY_INLINE void fetch_lines(const Panel& panel, int64_t k, int64_t depth) {
  const uint8_t* from = panel.line(k);
  for (int64_t i = 0; i < depth * Panel::kLine; i += 64) fetch(from + i);
}

// A panel's sums of so few rows that they stay in registers. a: pack_few's, `floats` a block.
template <int R, class Panel>
HWY_NOINLINE void multiply_unpacked(const float* HWY_RESTRICT a, int64_t floats, Panel panel, const Panel& next,
                                    int64_t inner, float* HWY_RESTRICT c, int64_t c_stride) {
  V sums[R][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::Zero(d);
  for (int64_t first = 0; first < inner; first += kSide) {
    const float* as = a + first / kDepth * floats + first % kDepth;
    const int64_t depth = std::min(kSide, inner - first);
    panel.open(first / kSide);
    if constexpr (R >= 4) fetch_lines(next, first, depth);  // below, the time goes to unpacking
    for (int64_t k = 0; k < depth; ++k) {
      V ws[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) ws[v] = panel.w(k, v);
      add_products<R, kRowStride>(as + k, ws, sums);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sums[r][v], d, c + r * c_stride + v * kLanes);
}

template <class Panel, int... R>
auto multiply_unpacked_of(int64_t rows, std::integer_sequence<int, R...>) {
  using Multiply = void (*)(const float*, int64_t, Panel, const Panel&, int64_t, float*, int64_t);
  static constexpr Multiply all[] = {&multiply_unpacked<R + 1, Panel>...};
  return all[rows - 1];
}

// The v-th vector of a panel's outputs, as multiply_few reads them.
template <class Panel>
struct UnpackedColumns {
  Panel panel, next;
  int64_t v;
  HWY_INLINE void step(int64_t k, float* to) {
    if (k % kSide == 0) panel.open(k / kSide);
    if (v == 0) fetch_lines(next, k, kStep);
    for (int64_t i = 0; i < kStep; ++i) hn::Store(panel.w(k % kSide + i, v), d, to + i * kLanes);
  }
  HWY_INLINE void one(int64_t k, float* to) {
    if (k % kSide == 0) panel.open(k / kSide);
    hn::Store(panel.w(k % kSide, v), d, to);
  }
};

template <class Panel>
HWY_INLINE void multiply_packed(const Product& p, const uint8_t* packed, const ProductPart& part) {
  const auto unpack = [&](int64_t panel_index, int64_t k, int64_t depth, float* to) HWY_ATTR {
    Panel panel(packed, p.inner, panel_index * kColumns);
    for (int64_t first = 0; first < depth; first += kSide) {
      panel.open((k + first) / kSide);
      for (int64_t i = 0; i < std::min(kSide, depth - first); ++i)
#pragma GCC unroll 2
        for (int64_t v = 0; v < kVectors; ++v) hn::Store(panel.w(i, v), d, to + (first + i) * kColumns + v * kLanes);
    }
  };
  if (part.rows > kRows) {
    const auto columns_at = [&](int64_t column) {
      return UnpackedColumns<Panel>{Panel(packed, p.inner, column / kColumns * kColumns),
                                    next_panel<Panel>(p, packed, column), column / kLanes % kVectors};
    };
    return multiply_columns(p, part, columns_at, unpack);
  }
  if (p.inner == 0) return multiply_panels(p, part, unpack);
  const float* a = pack_few(p, part, 0).a;
  const auto multiply = multiply_unpacked_of<Panel>(part.rows, std::make_integer_sequence<int, int(kRows)>());
  HWY_ALIGN float edge[kRows * kColumns];
  for (int64_t index = part.first; index < part.last; ++index) {
    const int64_t column = index * kColumns, columns = std::min(kColumns, p.columns - column);
    const bool whole = columns == kColumns;
    float* c = p.c + part.row * p.c_stride + column;
    multiply(a, block_floats(part.rows), Panel(packed, p.inner, column), next_panel<Panel>(p, packed, column), p.inner,
             whole ? c : edge, whole ? p.c_stride : kColumns);
    for (int64_t r = 0; r < part.rows && !whole; ++r)
      std::memcpy(c + r * p.c_stride, edge + r * kColumns, size_t(columns) * sizeof(float));
    finish_panel(p, part, index);
  }
}

void multiply_packed_part(const Product& p, const uint8_t* packed, bool int8, const ProductPart& part) {
  if (int8)
    multiply_packed<Int8Panel>(p, packed, part);
  else
    multiply_packed<Bf16Panel>(p, packed, part);
}

// What a block of weights, [kSide, kColumns] inputs by outputs, is packed to.
HWY_INLINE void pack_bf16(const float* block, int64_t depth, uint16_t* to) {
  const hn::Rebind<uint16_t, D> narrow;
  const hn::RebindToSigned<D> whole;
  for (int64_t k = 0; k < depth; ++k, block += kColumns, to += kSide)
    for (int64_t v = 0; v < kVectors; ++v) {
      const V w = hn::Load(d, block + v * kLanes);
      const auto bits = hn::BitCast(hn::RebindToUnsigned<D>(), w);
      const auto one = hn::Set(hn::RebindToUnsigned<D>(), 1u), most = hn::Set(hn::RebindToUnsigned<D>(), 0x7fffu);
      auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, most), hn::And(hn::ShiftRight<16>(bits), one)));
      const auto number = hn::RebindMask(hn::RebindToUnsigned<D>(), hn::Eq(w, w));
      rounded = hn::IfThenElse(number, rounded, hn::Set(hn::RebindToUnsigned<D>(), 0x7fc0u));
      hn::StoreU(hn::DemoteTo(narrow, hn::BitCast(whole, rounded)), narrow, to + v * kLanes);
    }
}

HWY_INLINE void pack_int8(const float* block, int64_t depth, int8_t* to, hwy::float16_t* scales) {
  const hn::Rebind<int8_t, D> narrow;
  const hn::Rebind<hwy::float16_t, D> half;
  for (int64_t v = 0; v < kVectors; ++v) {
    V most = hn::Zero(d), none_of_it = hn::Zero(d);  // the latter is no number where a weight is none
    for (int64_t k = 0; k < depth; ++k) {
      const V w = hn::Load(d, block + k * kColumns + v * kLanes);
      most = hn::Max(hn::Abs(w), most);
      none_of_it = hn::IfThenElse(hn::Eq(w, w), none_of_it, w);
    }
    const V wanted = hn::Min(hn::Div(most, hn::Set(d, 127.0f)), hn::Set(d, 65504.0f));
    const auto scale = hn::DemoteTo(half, hn::IfThenElse(hn::Eq(none_of_it, none_of_it), wanted, none_of_it));
    hn::StoreU(scale, half, scales + v * kLanes);
    const V by = hn::PromoteTo(d, scale);
    const auto none = hn::Eq(by, hn::Zero(d));
    for (int64_t k = 0; k < kSide; ++k) {
      const V w = k < depth ? hn::Load(d, block + k * kColumns + v * kLanes) : hn::Zero(d);
      const auto q = hn::NearestInt(
          hn::IfThenElse(none, hn::Zero(d), hn::Max(hn::Set(d, -127.0f), hn::Min(hn::Set(d, 127.0f), hn::Div(w, by)))));
      hn::StoreU(hn::DemoteTo(narrow, q), narrow, to + k * kSide + v * kLanes);
    }
  }
}

// Outputs [column, column + kColumns) of w [outputs, inner].
void pack_panel(const float* w, int64_t outputs, int64_t inner, bool int8, int64_t column, uint8_t* packed) {
  HWY_ALIGN float block[kSide * kColumns];
  const int64_t columns = std::clamp<int64_t>(outputs - column, 0, kColumns);
  for (int64_t first = 0; first < inner; first += kSide) {
    const int64_t depth = std::min(kSide, inner - first);
    if (columns > 0)
      pack_transposed(w + column * inner + first, inner, depth, columns, block);
    else
      std::fill_n(block, depth * kColumns, 0.0f);
    if (!int8) {
      pack_bf16(block, depth,
                reinterpret_cast<uint16_t*>(packed) + (column / kSide * inner + first) * kSide + column % kSide);
      continue;
    }
    uint8_t* to = packed + (column / kSide * blocks_of(inner) + first / kSide) * kBlockBytes;
    pack_int8(block, depth, reinterpret_cast<int8_t*>(to) + column % kSide,
              reinterpret_cast<hwy::float16_t*>(to + kSide * kSide) + column % kSide);
  }
}

int64_t packed_columns() { return kColumns; }

}  // namespace HWY_NAMESPACE
}  // namespace cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels.h"

namespace cpu {

HWY_EXPORT(multiply_packed_part);
HWY_EXPORT(pack_panel);
HWY_EXPORT(packed_columns);

namespace {

using dse::Op;

bool is_int8(const dse_operation& o) {
  check_instruction_set();
  if (o.packing != DSE_PACKED_BF16 && o.packing != DSE_PACKED_INT8) throw dse::Unsupported("other packings");
  return o.packing == DSE_PACKED_INT8;
}

struct PackWeights {
  static constexpr dse::KernelTraits traits{.op = Op::pack_weights, .priority = 1, .row_invariant = true};
  explicit PackWeights(const dse_operation& o) : in(o.in), out(o.out), int8(is_int8(o)) {}
  void run(const dse::Call<traits.op>& call) const {
    const auto* w = call.in<float>("w");
    auto* packed = call.out<uint8_t>("packed");
    const int64_t columns = HWY_DYNAMIC_DISPATCH(packed_columns)(),
                  panels = (out + kSide - 1) / kSide * kSide / columns;
    const auto pack = HWY_DYNAMIC_DISPATCH(pack_panel);
    dse::parallel_for(0, panels, 1, [&](int64_t first, int64_t last) {
      for (int64_t panel = first; panel < last; ++panel) pack(w, out, in, int8, panel * columns, packed);
    });
  }
  int64_t in, out;
  bool int8;
};

struct PackedLinear {
  static constexpr dse::KernelTraits traits{.op = Op::packed_linear, .priority = 1, .row_invariant = true};
  explicit PackedLinear(const dse_operation& o) : in(o.in), out(o.out), int8(is_int8(o)) {}
  void run(const dse::Call<traits.op>& call) const {
    const auto* packed = call.in<uint8_t>("packed");
    const auto multiply = HWY_DYNAMIC_DISPATCH(multiply_packed_part);
    each_part({.rows = call.rows(),
               .columns = out,
               .inner = in,
               .a = {call.in<float>("x"), in, 1},
               .b = {},
               .c = call.out<float>("y"),
               .c_stride = out,
               .bias = call.in<float>("b"),
               .residual = call.in<float>("residual")},
              [&](const Product& p, const ProductPart& part) { multiply(p, packed, int8, part); });
  }
  int64_t in, out;
  bool int8;
};

}  // namespace

void add_packed(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<PackWeights>("cpu_pack_weights"));
  items.push_back(dse::kernel_item<PackedLinear>("cpu_packed_linear"));
}

}  // namespace cpu
#endif
