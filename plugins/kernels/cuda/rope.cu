// Rotary positions (Su et al. 2021), by +angle forward and -angle backward. A block a token.
#include <vector>

#include "kernels.h"

namespace gpu {
namespace {

using dse::Op;

constexpr int64_t kMostPairs = 128;  // heads of 256

// In the kernel's parameters: no memory of the card's is kept.
struct Frequencies {
  float of[kMostPairs];
};

template <class T>
struct RopeRows {
  int64_t heads, turned, width, pairs, long_after;
  float amplitude, sign;
  bool two_tables;
  const int64_t *positions, *lengths;
  const T* from;
  T* to;
};

template <class T>
__global__ void turn(RopeRows<T> r, Frequencies common, Frequencies longer) {
  after_previous();
  const int64_t n = blockIdx.x, rest = r.width - 2 * r.pairs;
  const bool is_long = r.two_tables && r.lengths[n] > r.long_after;
  const float position = float(r.positions[n]);
  float* const cosine = shared_memory<float>();  // [pairs], and the sines
  for (int64_t i = threadIdx.x; i < r.pairs; i += blockDim.x) {
    // The angle is rounded to float32, as Hugging Face computes it.
    const float angle = position * (is_long ? longer.of[i] : common.of[i]);
    cosine[i] = cosf(angle) * r.amplitude, cosine[r.pairs + i] = sinf(angle) * r.amplitude * r.sign;
  }
  __syncthreads();
  const T* const from = r.from + n * r.heads * r.width;
  T* const to = r.to + n * r.heads * r.width;
  for (int64_t i = threadIdx.x; i < r.heads * (r.pairs + rest); i += blockDim.x) {
    const int64_t head = i / (r.pairs + rest), pair = i % (r.pairs + rest);
    const T* const a = from + head * r.width;
    T* const b = to + head * r.width;
    if (pair >= r.pairs) {
      b[pair + r.pairs] = a[pair + r.pairs];
    } else if (head >= r.turned) {
      b[pair] = a[pair], b[pair + r.pairs] = a[pair + r.pairs];
    } else {
      const float x = number(a[pair]), y = number(a[pair + r.pairs]);
      const float c = cosine[pair], s = cosine[r.pairs + pair];
      b[pair] = element<T>(x * c - y * s), b[pair + r.pairs] = element<T>(y * c + x * s);
    }
  }
}

template <Op op, class T>
struct Rope {
  static constexpr auto traits = traits_of<T>(op);
  explicit Rope(const dse_operation& o) {
    check_card(o);
    if (o.rope_pairs > kMostPairs) throw dse::Unsupported("heads of which more than 256 turn");
    rows.heads = o.heads, rows.width = o.head_dim, rows.pairs = o.rope_pairs, rows.long_after = o.rope_long_after;
    rows.amplitude = float(o.rope_amplitude), rows.sign = op == Op::rope ? 1.0f : -1.0f;
    rows.two_tables = o.rope_long_frequencies != nullptr;
    for (int64_t i = 0; i < o.rope_pairs; ++i) {
      common.of[i] = o.rope_frequencies[i];
      if (rows.two_tables) longer.of[i] = o.rope_long_frequencies[i];
    }
  }

  void run(const dse::Call<op>& call) const {
    RopeRows<T> r = rows;
    r.turned = call.integer("turned");
    r.positions = call.template in<int64_t>("positions"), r.lengths = call.template in<int64_t>("lengths");
    if constexpr (op == Op::rope)
      r.from = call.template in<T>("x"), r.to = call.template out<T>("y");
    else
      r.from = call.template in<T>("dy"), r.to = call.template out<T>("dx");
    launch(turn<T>, call.rows(), 256, size_t(2 * r.pairs) * sizeof(float), call.raw.stream, r, common, longer);
  }

  RopeRows<T> rows{};
  Frequencies common{}, longer{};
};

}  // namespace

void add_rope(std::deque<dse::Item>& items) {
  add_both<Rope, Op::rope>(items, DSE_BOTH("rope"));
  add_both<Rope, Op::rope_backward>(items, DSE_BOTH("rope_backward"));
}

}  // namespace gpu
