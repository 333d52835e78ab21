// The head of a language model: logits, their softcap, and what a softmax over the vocabulary makes of them. The
// vocabulary goes by in tiles of fixed size, whose sums are merged in order: so the log-probability that a sampler
// tells is, bit for bit, the one that training computes.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "head.cpp"
#include "targets.h"
// after targets.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "head.h"
#include "tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cpu {
namespace HWY_NAMESPACE {

void cap_logits(float* z, int64_t count, float cap) {
  const V c = hn::Set(d, cap);
  each_vector(count, [&](int64_t i, int64_t left, int64_t)
                         HWY_ATTR { store_some(hn::Mul(tanh(hn::Div(load_some(z + i, left), c)), c), z + i, left); });
}

// Of one row and tile: sums of exp(z - peak) and, if asked for, of z exp(z - peak); z = logit / temperature.
void sum_tile(const float* logits, int64_t count, float temperature, bool want_mean, TileSums& sums) {
  const V t = hn::Set(d, temperature);
  const auto z_of = [&](int64_t i, int64_t left) HWY_ATTR {
    const V z = hn::Div(load_some(logits + i, left), t);
    return left >= kLanes ? z : hn::IfThenElse(hn::FirstN(d, size_t(left)), z, hn::Set(d, kLowest));
  };
  V most = hn::Set(d, kLowest);
  each_vector(count, [&](int64_t i, int64_t left, int64_t) HWY_ATTR { most = hn::Max(most, z_of(i, left)); });
  sums.peak = hn::GetLane(hn::MaxOfLanes(d, most));
  const V peak = hn::Set(d, sums.peak);
  Sums exps, weighted;
  each_vector(count, [&](int64_t i, int64_t left, int64_t s) HWY_ATTR {
    const V z = z_of(i, left);
    V e = exp(hn::Sub(z, peak));
    if (left < kLanes) e = hn::IfThenElseZero(hn::FirstN(d, size_t(left)), e);
    exps.part[s] = hn::Add(exps.part[s], e);
    if (want_mean) weighted.part[s] = hn::MulAdd(e, z, weighted.part[s]);
  });
  sums.sum = exps.total();
  sums.weighted = want_mean ? weighted.total() : 0;
}

HeadSums merge_tiles(const TileSums* tiles, int64_t count) {
  TileSums all{kLowest, 0, 0};
  for (int64_t i = 0; i < count; ++i) {
    const float peak = std::max(all.peak, tiles[i].peak);
    const float before = hn::GetLane(exp(hn::Set(d, all.peak - peak)));
    const float now = hn::GetLane(exp(hn::Set(d, tiles[i].peak - peak)));
    all.sum = std::fma(all.sum, before, tiles[i].sum * now);
    all.weighted = std::fma(all.weighted, before, tiles[i].weighted * now);
    all.peak = peak;
  }
  return {all.peak + std::log(all.sum), all.weighted / all.sum};
}

// Logits of a tile become the slopes of d_logp logp + d_entropy entropy.
void slope_tile(float* logits, int64_t count, const HeadSlopes& s, int64_t target) {
  const V t = hn::Set(d, s.temperature), lse = hn::Set(d, s.lse), cap = hn::Set(d, s.cap);
  const V d_logp = hn::Set(d, -s.d_logp), d_entropy = hn::Set(d, s.d_entropy), entropy = hn::Set(d, s.entropy);
  const auto slope_of = [&](V z, V p) HWY_ATTR {
    V weight = d_logp;
    if (s.d_entropy != 0) weight = hn::NegMulAdd(hn::Add(hn::Sub(hn::Div(z, t), lse), entropy), d_entropy, weight);
    return hn::Mul(p, weight);
  };
  each_vector(count, [&](int64_t i, int64_t left, int64_t) HWY_ATTR {
    const V z = load_some(logits + i, left);
    V dz = slope_of(z, exp(hn::Sub(hn::Div(z, t), lse)));
    const int64_t place = target - i;
    if (place >= 0 && place < std::min(left, kLanes))
      dz = hn::Add(dz, hn::IfThenElseZero(hn::Eq(hn::Iota(d, 0.0f), hn::Set(d, float(place))), hn::Set(d, s.d_logp)));
    dz = hn::Div(dz, t);
    if (s.cap > 0) {
      const V part = hn::Div(z, cap);
      dz = hn::Mul(dz, hn::NegMulAdd(part, part, hn::Set(d, 1.0f)));
    }
    store_some(dz, logits + i, left);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels.h"
#include "product.h"
#include "scratch.h"

namespace cpu {

HWY_EXPORT(cap_logits);
HWY_EXPORT(sum_tile);
HWY_EXPORT(merge_tiles);
HWY_EXPORT(slope_tile);

void sum_head_tiles(const float* logits, const float* temperatures, int64_t rows, int64_t vocabulary, bool weighted,
                    TileSums* sums) {
  const int64_t tiles = head_tiles(vocabulary);
  const auto sum = HWY_DYNAMIC_DISPATCH(sum_tile);
  dse::parallel_for(0, rows * tiles, 16, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t row = task / tiles, tile = task % tiles;
      sum(logits + row * vocabulary + tile * kHeadTile, head_tile_size(vocabulary, tile), temperatures[row], weighted,
          sums[task]);
    }
  });
}

void merge_head_tiles(const TileSums* sums, int64_t rows, int64_t tiles, float* lse, float* mean) {
  for (int64_t n = 0; n < rows; ++n) {
    const HeadSums head = HWY_DYNAMIC_DISPATCH(merge_tiles)(sums + n * tiles, tiles);
    lse[n] = head.lse;
    if (mean) mean[n] = head.mean_logit;
  }
}

namespace {

using dse::Op;

// Logits of a tile of the vocabulary for `rows` rows of x, softcapped, at rows of `to` that are `stride` apart.
struct HeadWeights {
  const float* data;  // [vocabulary, width]
  int64_t width, vocabulary;
  float cap;
  void logits(const float* x, int64_t rows, int64_t tile, float* to, int64_t stride) const {
    const int64_t count = head_tile_size(vocabulary, tile);
    product_here({.rows = rows,
                  .columns = count,
                  .inner = width,
                  .a = {x, width, 1},
                  .b = {data + tile * kHeadTile * width, 1, width},
                  .c = to,
                  .c_stride = stride});
    if (cap <= 0) return;
    for (int64_t r = 0; r < rows; ++r) HWY_DYNAMIC_DISPATCH(cap_logits)(to + r * stride, count, cap);
  }
};

struct Softcap {
  static constexpr dse::KernelTraits traits{.op = Op::softcap, .priority = 1, .row_invariant = true};
  explicit Softcap(const dse_operation& o) : width(o.out), cap(float(o.softcap)) { check_instruction_set(); }
  void run(const dse::Call<traits.op>& call) const {
    float* z = call.out<float>("logits");
    const auto run_row = HWY_DYNAMIC_DISPATCH(cap_logits);
    dse::parallel_for(0, call.rows() * head_tiles(width), 16, [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) {
        const int64_t row = task / head_tiles(width), tile = task % head_tiles(width);
        run_row(z + row * width + tile * kHeadTile, head_tile_size(width, tile), cap);
      }
    });
  }
  int64_t width;
  float cap;
};

struct LogitSums {
  static constexpr dse::KernelTraits traits{.op = Op::logit_sums, .priority = 1, .row_invariant = true};
  explicit LogitSums(const dse_operation& o) : vocabulary(o.out) { check_instruction_set(); }
  int64_t workspace_bytes(int64_t rows) const { return rows * head_tiles(vocabulary) * int64_t(sizeof(TileSums)); }
  void run(const dse::Call<traits.op>& call) const {
    const float *z = call.in<float>("logits"), *temperatures = call.in<float>("temperatures");
    const int64_t* targets = call.in<int64_t>("targets");
    float *lse = call.out<float>("lse"), *at_target = call.out<float>("target_logit"),
          *mean = call.out<float>("mean_logit");
    auto* sums = static_cast<TileSums*>(call.raw.workspace);
    sum_head_tiles(z, temperatures, call.rows(), vocabulary, mean, sums);
    for (int64_t n = 0; n < call.rows(); ++n) at_target[n] = z[n * vocabulary + targets[n]] / temperatures[n];
    merge_head_tiles(sums, call.rows(), head_tiles(vocabulary), lse, mean);
  }
  int64_t vocabulary;
};

// A block of rows and a tile of the vocabulary at a time: logits are nowhere else.
struct LogProb {
  static constexpr dse::KernelTraits traits{.op = Op::log_prob, .priority = 1, .row_invariant = true};
  explicit LogProb(const dse_operation& o) : width(o.in), vocabulary(o.out), cap(float(o.softcap)) {
    check_instruction_set();
  }
  int64_t workspace_bytes(int64_t rows) const { return rows * head_tiles(vocabulary) * int64_t(sizeof(TileSums)); }
  void run(const dse::Call<traits.op>& call) const {
    const float* x = call.in<float>("x");
    const HeadWeights head{call.in<float>("head"), width, vocabulary, cap};
    const int64_t* targets = call.in<int64_t>("targets");
    float *lse = call.out<float>("lse"), *at_target = call.out<float>("target_logit"),
          *mean = call.out<float>("mean_logit");
    auto* sums = static_cast<TileSums*>(call.raw.workspace);
    const auto temperature = float(call.real("temperature"));
    const int64_t tiles = head_tiles(vocabulary), blocks = (call.rows() + kHeadRows - 1) / kHeadRows;
    dse::parallel_for(0, blocks * tiles, 1, [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) {
        const int64_t row = task / tiles * kHeadRows, rows = std::min(kHeadRows, call.rows() - row);
        const int64_t tile = task % tiles, begin = tile * kHeadTile, count = head_tile_size(vocabulary, tile);
        float* logits = scratch(kHeadRows * kHeadTile, 1);
        head.logits(x + row * width, rows, tile, logits, kHeadTile);
        for (int64_t r = 0; r < rows; ++r) {
          const float* z = logits + r * kHeadTile;
          HWY_DYNAMIC_DISPATCH(sum_tile)(z, count, temperature, mean, sums[(row + r) * tiles + tile]);
          const int64_t target = targets[row + r] - begin;
          if (target >= 0 && target < count) at_target[row + r] = z[target] / temperature;
        }
      }
    });
    merge_head_tiles(sums, call.rows(), tiles, lse, mean);
  }
  int64_t width, vocabulary;
  float cap;
};

// The slopes of the logits of some rows at once, in memory of the call's: what they are of the input, and of the head.
struct LogProbBackward {
  static constexpr dse::KernelTraits traits{.op = Op::log_prob_backward, .priority = 1, .row_invariant = true};
  explicit LogProbBackward(const dse_operation& o) : width(o.in), vocabulary(o.out), cap(float(o.softcap)) {
    check_instruction_set();
  }
  int64_t rows_at_once(int64_t rows) const {
    constexpr int64_t floats = int64_t{1} << 24;  // 64 MiB
    return std::min(rows, std::max<int64_t>(16, floats / vocabulary));
  }
  int64_t workspace_bytes(int64_t rows) const { return rows_at_once(rows) * vocabulary * int64_t(sizeof(float)); }

  void run(const dse::Call<traits.op>& call) const {
    for (int64_t row = 0, step = rows_at_once(call.rows()); row < call.rows(); row += step)
      run_rows(call, row, std::min(step, call.rows() - row));
  }

  void run_rows(const dse::Call<traits.op>& call, int64_t row, int64_t rows) const {
    const float *x = call.in<float>("x") + row * width, *head = call.in<float>("head");
    auto* dz = static_cast<float*>(call.raw.workspace);
    const int64_t tiles = head_tiles(vocabulary), blocks = (rows + kHeadRows - 1) / kHeadRows;
    dse::parallel_for(0, blocks * tiles, 1, [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task)
        slopes_of(call, row, task / tiles * kHeadRows, std::min(kHeadRows, rows - task / tiles * kHeadRows),
                  task % tiles, dz);
    });
    product({.rows = rows,
             .columns = width,
             .inner = vocabulary,
             .a = {dz, vocabulary, 1},
             .b = {head, width, 1},
             .c = call.out<float>("dx") + row * width,
             .c_stride = width});
    if (float* dhead = call.out<float>("dhead"))
      product({.rows = vocabulary,
               .columns = width,
               .inner = rows,
               .a = {dz, 1, vocabulary},
               .b = {x, width, 1},
               .c = dhead,
               .c_stride = width,
               .accumulate = true});
  }

  // Of rows [first, first + rows) of those that begin at `row`.
  void slopes_of(const dse::Call<traits.op>& call, int64_t row, int64_t first, int64_t rows, int64_t tile,
                 float* dz) const {
    const int64_t begin = tile * kHeadTile, count = head_tile_size(vocabulary, tile);
    const float *d_entropy = call.in<float>("d_entropy"), *entropy = call.in<float>("entropy");
    float* to = dz + first * vocabulary + begin;
    const HeadWeights head{call.in<float>("head"), width, vocabulary, cap};
    head.logits(call.in<float>("x") + (row + first) * width, rows, tile, to, vocabulary);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t n = row + first + r;
      const HeadSlopes slopes{.temperature = float(call.real("temperature")),
                              .cap = cap,
                              .lse = call.in<float>("lse")[n],
                              .d_logp = call.in<float>("d_logp")[n],
                              .d_entropy = d_entropy ? d_entropy[n] : 0,
                              .entropy = d_entropy ? entropy[n] : 0};
      HWY_DYNAMIC_DISPATCH(slope_tile)(to + r * vocabulary, count, slopes, call.in<int64_t>("targets")[n] - begin);
    }
  }

  int64_t width, vocabulary;
  float cap;
};

}  // namespace

void add_head(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<Softcap>("cpu_softcap"));
  items.push_back(dse::kernel_item<LogitSums>("cpu_logit_sums"));
  items.push_back(dse::kernel_item<LogProb>("cpu_log_prob"));
  items.push_back(dse::kernel_item<LogProbBackward>("cpu_log_prob_backward"));
}

}  // namespace cpu
#endif
