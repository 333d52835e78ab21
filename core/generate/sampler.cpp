#include "generate/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

namespace dsengine {

namespace {

// exp((z - peak) / temperature) of each.
std::vector<double> weights_of(std::span<const float> z, double temperature, float peak) {
  std::vector<double> weights(z.size());
  for (size_t i = 0; i < z.size(); ++i) weights[i] = std::exp(double(z[i] - peak) / temperature);
  return weights;
}

double sum_of(std::span<const double> weights) {
  double sum = 0;
  for (const double w : weights) sum += w;
  return sum;
}

// Tokens in order of their weights of at most 1, the most probable first (ties: lower id first), of which filters keep
// the first so many. No vocabulary is ever sorted: a place in the order is found as by a radix sort that goes down one
// branch, for positive numbers are ordered as their bits.
class Ranking {
 public:
  // total: of all the weights.
  Ranking(std::span<const double> weights, double total)
      : weights_(weights), bins_(kBins), size_(weights.size()), total_(total) {
    for (const double w : weights_) bins_[first_digit(w)].add(w);
  }

  void keep_first(size_t count) { keep(reach(count, HUGE_VAL)); }
  // The fewest that together weigh that share of those kept; at least one.
  void keep_share(double share) { keep(reach(size_, share * total_)); }
  void keep_heavier(double least) {
    size_t count = 0;
    for (const double w : weights_) count += w >= least;
    keep_first(std::max<size_t>(1, count));
  }
  // The first at which the sum of weights passes that share of those kept.
  int32_t at(double share) const { return reach(size_, std::nextafter(share * total_, HUGE_VAL)).id; }

 private:
  // Of an element of the order: how many there are up to and with it, and what they weigh.
  struct Place {
    size_t count = 0;
    double sum = 0;
    int32_t id = 0;
  };
  struct Bin {
    double sum = 0;
    uint32_t count = 0;
    void add(double weight) { sum += weight, ++count; }
  };
  static constexpr int kBits = 12, kShift = 46;
  static constexpr size_t kBins = size_t{1} << kBits;

  // Of 64 powers of two the exponent and 6 bits of the mantissa; what is lighter is in bin 0.
  static size_t first_digit(double weight) {
    constexpr int64_t one = int64_t(std::bit_cast<uint64_t>(1.0) >> kShift), last = kBins - 1;
    return size_t(std::clamp<int64_t>(int64_t(std::bit_cast<uint64_t>(weight) >> kShift) - one + last, 0, last));
  }

  void keep(const Place& last) {
    if (last.count < size_) size_ = last.count, total_ = last.sum;
  }

  // The first element at which there are `count`, or they weigh `sum`; the last that is kept where neither comes
  // before.
  Place reach(size_t count, double sum) const {
    count = std::min(count, size_);
    Place before;
    const size_t bin = skip(bins_, count, sum, before);
    std::vector<int32_t> ids(bins_[bin].count + 1);  // one more, for what is written and not kept
    size_t n = 0;
    for (size_t i = 0; i < weights_.size(); ++i) ids[n] = int32_t(i), n += first_digit(weights_[i]) == bin;
    ids.resize(n);
    const auto better = [this](int32_t a, int32_t b) {
      const auto x = std::bit_cast<uint64_t>(weight(a)), y = std::bit_cast<uint64_t>(weight(b));
      return x != y ? x > y : a < b;
    };
    // The lightest differ in their first bits still.
    for (int shift = bin > 0 ? kShift - kBits : 64 - 1 - kBits; shift > 0 && ids.size() > 64; shift -= kBits) {
      if (std::is_sorted(ids.begin(), ids.end(), better)) break;  // equals
      const auto digit = [&](int32_t id) { return size_t(std::bit_cast<uint64_t>(weight(id)) >> shift) % kBins; };
      std::vector<Bin> bins(kBins);
      for (const auto id : ids) bins[digit(id)].add(weight(id));
      const size_t next = skip(bins, count, sum, before);
      std::erase_if(ids, [&](int32_t id) { return digit(id) != next; });
    }
    if (!std::is_sorted(ids.begin(), ids.end(), better)) std::sort(ids.begin(), ids.end(), better);
    for (const auto id : ids) {
      before = {before.count + 1, before.sum + weight(id), id};
      if (before.count >= count || before.sum >= sum) break;
    }
    return before;
  }

  // The bin in which that element lies; those passed over are added to `before`.
  static size_t skip(const std::vector<Bin>& bins, size_t count, double sum, Place& before) {
    size_t last = 0;  // where rounding keeps the sum from being reached
    for (size_t b = kBins; b-- > 0;) {
      if (bins[b].count == 0) continue;
      const Place with{before.count + bins[b].count, before.sum + bins[b].sum};
      if (with.count >= count || with.sum >= sum) return b;
      before = with, last = b;
    }
    return last;
  }

  double weight(int32_t id) const { return weights_[size_t(id)]; }

  std::span<const double> weights_;
  std::vector<Bin> bins_;
  size_t size_;
  double total_;
};

int32_t drawn(const std::vector<double>& weight, double total, const SamplingOptions& o, double uniform) {
  if (!o.filters()) {
    double left = total * uniform;
    for (size_t i = 0; i < weight.size(); ++i) {
      left -= weight[i];
      if (left < 0) return int32_t(i);
    }
    return int32_t(weight.size()) - 1;  // rounding: the draw fell past the last token
  }
  Ranking ranking(weight, total);
  if (o.top_k > 0) ranking.keep_first(size_t(o.top_k));
  if (o.top_p < 1) ranking.keep_share(o.top_p);
  if (o.min_p > 0) ranking.keep_heavier(o.min_p);  // the best weighs 1
  return ranking.at(uniform);
}

}  // namespace

int32_t sample(std::span<const float> logits, const SamplingOptions& o, double uniform, std::span<const int32_t> seen) {
  std::vector<float> penalised;
  std::span<const float> z = logits;
  if (o.repetition_penalty != 1) {
    penalised.assign(logits.begin(), logits.end());
    for (const auto id : seen) {
      const float x = logits[size_t(id)];
      penalised[size_t(id)] = float(x > 0 ? x / o.repetition_penalty : x * o.repetition_penalty);
    }
    z = penalised;
  }
  const auto best = std::max_element(z.begin(), z.end());
  if (o.temperature <= 0) return int32_t(best - z.begin());
  const std::vector<double> weights = weights_of(z, o.temperature, *best);
  return drawn(weights, sum_of(weights), o, uniform);
}

}  // namespace dsengine
