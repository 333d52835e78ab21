// The next token of each row of logits: the tile of the vocabulary in which the draw falls, by the sums that its
// log-probability is made of, and the place in that tile.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "draw.cpp"
#include "targets.h"
// after targets.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>

#include "head.h"
#include "tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cpu {
namespace HWY_NAMESPACE {

// The first place of a tile at which the sum of exp(z - peak), in order, passes `left`; where rounding keeps it from
// that, the last that weighs anything.
int64_t place_in_tile(const float* logits, int64_t count, float temperature, float peak, double left) {
  HWY_ALIGN float weights[kHeadTile];
  const V t = hn::Set(d, temperature), most = hn::Set(d, peak);
  each_vector(count, [&](int64_t i, int64_t some, int64_t) HWY_ATTR {
    const V z = hn::Sub(hn::Div(load_some(logits + i, some), t), most);
    const V weight = hn::IfThenElseZero(hn::Gt(z, hn::Set(d, -87.0f)), exp(z));  // exp is never 0 by itself
    store_some(weight, weights + i, some);
  });
  int64_t last = 0;
  for (int64_t i = 0; i < count; ++i) {
    left -= weights[i];
    if (left < 0) return i;
    if (weights[i] > 0) last = i;
  }
  return last;
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels.h"

namespace cpu {

HWY_EXPORT(place_in_tile);

namespace {

using dse::Op;

struct Draw {
  static constexpr dse::KernelTraits traits{.op = Op::draw, .priority = 1, .row_invariant = true};
  explicit Draw(const dse_operation& o) : vocabulary(o.out) { check_instruction_set(); }
  int64_t workspace_bytes(int64_t rows) const { return rows * head_tiles(vocabulary) * int64_t(sizeof(TileSums)); }

  void run(const dse::Call<traits.op>& call) const {
    const float *z = call.in<float>("logits"), *temperatures = call.in<float>("temperatures");
    const double* draws = call.in<double>("draws");
    int64_t* tokens = call.out<int64_t>("tokens");
    auto* sums = static_cast<TileSums*>(call.raw.workspace);
    const int64_t tiles = head_tiles(vocabulary);
    sum_head_tiles(z, temperatures, call.rows(), vocabulary, false, sums);
    dse::parallel_for(0, call.rows(), 1, [&](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) {
        const float* row = z + n * vocabulary;
        tokens[n] = draws[n] < 0 ? likeliest(row, temperatures[n], sums + n * tiles)
                                 : drawn(row, temperatures[n], sums + n * tiles, draws[n]);
      }
    });
    merge_head_tiles(sums, call.rows(), tiles, call.out<float>("lse"), nullptr);
    for (int64_t n = 0; n < call.rows(); ++n)
      call.out<float>("target_logit")[n] = z[n * vocabulary + tokens[n]] / temperatures[n];
  }

  int64_t likeliest(const float* logits, float temperature, const TileSums* sums) const {
    int64_t best = 0;
    for (int64_t tile = 1; tile < head_tiles(vocabulary); ++tile)
      if (sums[tile].peak > sums[best].peak) best = tile;
    const float* const from = logits + best * kHeadTile;
    const int64_t count = head_tile_size(vocabulary, best);
    for (int64_t i = 0; i < count; ++i)
      if (from[i] / temperature == sums[best].peak) return best * kHeadTile + i;
    return best * kHeadTile;  // where nothing is a number
  }

  int64_t drawn(const float* logits, float temperature, const TileSums* sums, double draw) const {
    const int64_t tiles = head_tiles(vocabulary);
    float peak = sums[0].peak;
    for (int64_t tile = 1; tile < tiles; ++tile) peak = std::max(peak, sums[tile].peak);
    const auto scale_of = [&](int64_t tile) { return std::exp(double(sums[tile].peak) - peak); };
    double total = 0;
    for (int64_t tile = 0; tile < tiles; ++tile) total += sums[tile].sum * scale_of(tile);
    double left = draw * total;
    int64_t chosen = 0;  // the last that weighs anything, where rounding carries the draw past all of them
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const double weight = sums[tile].sum * scale_of(tile);
      if (weight > 0) chosen = tile;
      if (left < weight) break;
      if (tile + 1 < tiles) left -= weight;
    }
    return chosen * kHeadTile + HWY_DYNAMIC_DISPATCH(place_in_tile)(logits + chosen * kHeadTile,
                                                                    head_tile_size(vocabulary, chosen), temperature,
                                                                    sums[chosen].peak, left / scale_of(chosen));
  }

  int64_t vocabulary;
};

}  // namespace

void add_draw(std::deque<dse::Item>& items) { items.push_back(dse::kernel_item<Draw>("cpu_draw")); }

}  // namespace cpu
#endif
