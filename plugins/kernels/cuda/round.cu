// float32 to bfloat16 by counted draws, Philox4x32-10 (Salmon et al. 2011): a thread the eight elements of a draw.
#include "kernels.h"

namespace gpu {
namespace {

using dse::Op;

constexpr int kThreads = 256, kOfDraw = 8;

struct Draws {
  uint32_t key[2], high[2];
  uint64_t stream;

  struct Bits {
    uint32_t at[4];
    __device__ uint32_t half(int i) const { return at[i / 2] >> i % 2 * 16 & 0xffffu; }
  };
  __device__ Bits of(uint64_t group) const {
    const uint64_t position = 2 * group + stream;
    uint32_t c[4] = {uint32_t(position), uint32_t(position >> 32), high[0], high[1]}, k[2] = {key[0], key[1]};
    for (int round = 0; round < 10; ++round) {
      const uint64_t a = uint64_t{0xD2511F53} * c[0], b = uint64_t{0xCD9E8D57} * c[2];
      c[0] = uint32_t(b >> 32) ^ c[1] ^ k[0], c[2] = uint32_t(a >> 32) ^ c[3] ^ k[1];
      c[1] = uint32_t(b), c[3] = uint32_t(a);
      k[0] += 0x9E3779B9u, k[1] += 0xBB67AE85u;
    }
    return {{c[0], c[1], c[2], c[3]}};
  }
};

__global__ void round_by_draws(const float* x, bf16* y, int64_t first, int64_t count, Draws draws) {
  after_previous();
  const int64_t group = first / kOfDraw + blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (group * kOfDraw >= first + count) return;
  const Draws::Bits bits = draws.of(uint64_t(group));
  for (int j = 0; j < kOfDraw; ++j) {
    const int64_t n = group * kOfDraw + j - first;
    if (n >= 0 && n < count) y[n].bits = uint16_t((__float_as_uint(x[n]) + bits.half(j)) >> 16);
  }
}

struct StochasticRound {
  static constexpr auto traits = traits_of<bf16>(Op::stochastic_round);
  explicit StochasticRound(const dse_operation& o) { check_card(o); }
  void run(const dse::Call<traits.op>& call) const {
    const auto low = [](int64_t x) { return uint32_t(uint64_t(x)); };
    const auto upper = [](int64_t x) { return uint32_t(uint64_t(x) >> 32); };
    const int64_t key = call.integer("key"), high = call.integer("high"), first = call.integer("first");
    const Draws draws{{low(key), upper(key)}, {low(high), upper(high)}, uint64_t(call.integer("stream"))};
    if (call.rows() == 0) return;
    const int64_t groups = (first + call.rows() - 1) / kOfDraw - first / kOfDraw + 1;
    launch(round_by_draws, blocks_of(groups, kThreads), kThreads, 0, call.raw.stream, call.in<float>("x"),
           call.out<bf16>("y"), first, call.rows(), draws);
  }
};

}  // namespace

void add_rounding(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<StochasticRound>("cuda_stochastic_round"));
}

}  // namespace gpu
