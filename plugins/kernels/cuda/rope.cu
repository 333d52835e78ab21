// Rotary positions, by +angle forward and -angle backward. A block a token.
#include "rope.h"

namespace gpu {

Turning::Turning(const dse_operation& o)
    : pairs(o.rope_pairs),
      long_after(o.rope_long_after),
      amplitude(float(o.rope_amplitude)),
      two_tables(o.rope_long_frequencies != nullptr) {
  if (pairs > kMostPairs) throw dse::Unsupported("heads of which more than 256 turn");
  for (int64_t i = 0; i < pairs; ++i) {
    frequencies[i] = o.rope_frequencies[i];
    if (two_tables) long_frequencies[i] = o.rope_long_frequencies[i];
  }
}

namespace {

using dse::Op;

template <class T>
struct RopeRows {
  int64_t heads, turned, width;
  const int64_t *positions, *lengths;
  const T* from;
  T* to;
};

template <class T>
__global__ void turn(RopeRows<T> r, Turning by) {
  after_previous();
  const int64_t n = blockIdx.x, rest = r.width - 2 * by.pairs;
  float* const cosine = shared_memory<float>();  // [pairs], and the sines
  by.angles(r.positions[n], r.lengths[n], cosine, cosine + by.pairs);
  __syncthreads();
  const T* const from = r.from + n * r.heads * r.width;
  T* const to = r.to + n * r.heads * r.width;
  for (int64_t i = threadIdx.x; i < r.heads * (by.pairs + rest); i += blockDim.x) {
    const int64_t head = i / (by.pairs + rest), pair = i % (by.pairs + rest);
    const T* const a = from + head * r.width;
    T* const b = to + head * r.width;
    if (pair >= by.pairs) {
      b[pair + by.pairs] = a[pair + by.pairs];
    } else if (head >= r.turned) {
      b[pair] = a[pair], b[pair + by.pairs] = a[pair + by.pairs];
    } else {
      const TurnedPair both =
          turned(number(a[pair]), number(a[pair + by.pairs]), cosine[pair], cosine[by.pairs + pair]);
      b[pair] = element<T>(both.first), b[pair + by.pairs] = element<T>(both.second);
    }
  }
}

template <Op op, class T>
struct Rope {
  static constexpr auto traits = traits_of<T>(op);
  explicit Rope(const dse_operation& o) : by(o) {
    check_card(o);
    rows.heads = o.heads, rows.width = o.head_dim, by.sign = op == Op::rope ? 1.0f : -1.0f;
  }

  void run(const dse::Call<op>& call) const {
    RopeRows<T> r = rows;
    r.turned = call.integer("turned");
    r.positions = call.template in<int64_t>("positions"), r.lengths = call.template in<int64_t>("lengths");
    if constexpr (op == Op::rope)
      r.from = call.template in<T>("x"), r.to = call.template out<T>("y");
    else
      r.from = call.template in<T>("dy"), r.to = call.template out<T>("dx");
    launch(turn<T>, call.rows(), 256, size_t(2 * by.pairs) * sizeof(float), call.raw.stream, r, by);
  }

  RopeRows<T> rows{};
  Turning by;
};

}  // namespace

void add_rope(std::deque<dse::Item>& items) {
  add_both<Rope, Op::rope>(items, DSE_BOTH("rope"));
  add_both<Rope, Op::rope_backward>(items, DSE_BOTH("rope_backward"));
}

}  // namespace gpu
