// The head of a language model: what a softmax over the vocabulary makes of logits. A row is one block's; the
// vocabulary goes by in tiles of 512, one warp's each, whose sums are merged in order.
#include "invariant.h"
#include "kernels.h"
#include "product.h"

namespace gpu {
namespace {

using dse::Op;

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int64_t kTile = 512, kOfLane = kTile / kWarp;
constexpr float kLowest = -3.402823466e38f;

inline __host__ __device__ int64_t tiles_of(int64_t vocabulary) { return (vocabulary + kTile - 1) / kTile; }

// Of exp(z - peak) and z exp(z - peak).
struct Sums {
  float peak, sum, weighted;
};

// b's tiles stand behind a's.
__device__ inline Sums merged(const Sums& a, const Sums& b) {
  const float peak = fmaxf(a.peak, b.peak), of_a = expf(a.peak - peak), of_b = expf(b.peak - peak);
  return {peak, fmaf(a.sum, of_a, b.sum * of_b), fmaf(a.weighted, of_a, b.weighted * of_b)};
}

// The tile's sums, for each lane of the warp.
__device__ Sums tile_sums(const float* logits, int64_t vocabulary, int64_t tile, float temperature, bool whole) {
  float z[kOfLane];
  Sums s{kLowest, 0, 0};
  for (int64_t p = 0; p < kOfLane; p += Pack<float>::kSize) {
    const int64_t i = tile * kTile + p * kWarp + int64_t(threadIdx.x % kWarp) * Pack<float>::kSize;
    const Numbers<float> v = load(logits, i, vocabulary, whole && i < vocabulary);
    for (int j = 0; j < Pack<float>::kSize; ++j) {
      z[p + j] = i + j < vocabulary ? v.at[j] / temperature : kLowest;
      s.peak = fmaxf(s.peak, z[p + j]);
    }
  }
  s.peak = warp_max(s.peak);
  for (const float one : z) {
    const float e = one > kLowest ? expf(one - s.peak) : 0;
    s.sum += e, s.weighted = fmaf(e, one, s.weighted);
  }
  s.sum = warp_sum(s.sum), s.weighted = warp_sum(s.weighted);
  return s;
}

// A row's sums for each thread of the block, and those of its tiles. room: [tiles + 1] of the block's shared memory.
__device__ Sums row_sums(const float* logits, int64_t vocabulary, float temperature, bool whole, Sums* room) {
  const int64_t tiles = tiles_of(vocabulary);
  const int lane = int(threadIdx.x) % kWarp;
  for (int64_t tile = int64_t(threadIdx.x) / kWarp; tile < tiles; tile += kWarps) {
    const Sums s = tile_sums(logits, vocabulary, tile, temperature, whole);
    if (lane == 0) room[tile] = s;
  }
  __syncthreads();
  if (int(threadIdx.x) < kWarp) {  // each lane merges a run of tiles, and the runs are merged as they stand
    const int64_t run = (tiles + kWarp - 1) / kWarp, first = lane * run;
    Sums s{kLowest, 0, 0};
    for (int64_t tile = first; tile < first + run && tile < tiles; ++tile) s = merged(s, room[tile]);
    for (int by = 1; by < kWarp; by *= 2) {
      const Sums next{__shfl_xor_sync(kAllLanes, s.peak, by), __shfl_xor_sync(kAllLanes, s.sum, by),
                      __shfl_xor_sync(kAllLanes, s.weighted, by)};
      s = (lane & by) == 0 ? merged(s, next) : merged(next, s);
    }
    if (lane == 0) room[tiles] = s;
  }
  __syncthreads();
  return room[tiles];
}

struct SumsOut {
  float *lse, *target_logit, *mean_logit;
};

// temperatures null: `temperature` for all.
__global__ void logit_sums(const float* logits, int64_t vocabulary, const float* temperatures, float temperature,
                           const int64_t* targets, bool whole, SumsOut out) {
  after_previous();
  const int64_t n = blockIdx.x;
  const float* const row = logits + n * vocabulary;
  if (temperatures) temperature = temperatures[n];
  const Sums s = row_sums(row, vocabulary, temperature, whole, shared_memory<Sums>());
  if (threadIdx.x != 0) return;
  out.lse[n] = s.peak + logf(s.sum), out.target_logit[n] = row[targets[n]] / temperature;
  if (out.mean_logit) out.mean_logit[n] = s.weighted / s.sum;
}
void launch_sums(const float* logits, int64_t rows, int64_t vocabulary, const float* temperatures, float temperature,
                 const int64_t* targets, const SumsOut& out, void* stream) {
  launch(logit_sums, rows, kThreads, size_t(tiles_of(vocabulary) + 1) * sizeof(Sums), stream, logits, vocabulary,
         temperatures, temperature, targets, whole_packs<float>(vocabulary, logits), out);
}

__global__ void cap(float* z, int64_t count, float softcap) {
  after_previous();
  const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (i < count) z[i] = tanhf(z[i] / softcap) * softcap;
}
void launch_cap(float* z, int64_t count, float softcap, void* stream) {
  if (softcap > 0) launch(cap, blocks_of(count, kThreads), kThreads, 0, stream, z, count, softcap);
}

// The first of `count` places at which the sum of weight(place), in order, passes `draw` of all; where rounding keeps
// it from that, the last that weighs anything. A warp's, which calls it together; each lane weighs a run.
struct Found {
  int64_t place;
  double left;  // of the draw, in that place
};
template <class F>
__device__ Found find(int64_t count, const F& weight, double draw, bool draw_is_of_all) {
  const int lane = int(threadIdx.x) % kWarp;
  const int64_t run = (count + kWarp - 1) / kWarp, first = lane * run, last = first + run < count ? first + run : count;
  double own = 0;
  int heaviest = -1;  // the last that weighs anything
  for (int64_t i = first; i < last; ++i) {
    const double w = weight(i);
    own += w;
    if (w > 0) heaviest = int(i);
  }
  double up_to = own;
  for (unsigned by = 1; by < kWarp; by *= 2) {
    const double more = __shfl_up_sync(kAllLanes, up_to, by);
    if (unsigned(lane) >= by) up_to += more;
  }
  const double of_lane_before = __shfl_up_sync(kAllLanes, up_to, 1u), before = lane == 0 ? 0 : of_lane_before;
  const double all = __shfl_sync(kAllLanes, up_to, kWarp - 1);
  if (draw_is_of_all) draw *= all;
  const unsigned passed = __ballot_sync(kAllLanes, draw < up_to && heaviest >= 0);
  const unsigned weighs = __ballot_sync(kAllLanes, heaviest >= 0);
  const int chosen = passed ? __ffs(int(passed)) - 1 : weighs ? kWarp - 1 - __clz(int(weighs)) : 0;
  int place = heaviest < 0 ? 0 : heaviest;
  double left = draw - before;
  for (int64_t i = first; i < last; ++i) {
    const double w = weight(i);
    if (int(i) == heaviest || left < w) {
      place = int(i);
      break;
    }
    left -= w;
  }
  return {__shfl_sync(kAllLanes, place, chosen), __shfl_sync(kAllLanes, left, chosen)};
}

__global__ void draw_tokens(const float* logits, int64_t vocabulary, const float* temperatures, const double* draws,
                            bool whole, int64_t* tokens, float* lse, float* target_logit) {
  after_previous();
  const int64_t n = blockIdx.x, tiles = tiles_of(vocabulary);
  const float* const row = logits + n * vocabulary;
  const float temperature = temperatures[n];
  Sums* const of_tiles = shared_memory<Sums>();
  const Sums s = row_sums(row, vocabulary, temperature, whole, of_tiles);
  if (threadIdx.x >= kWarp) return;
  const auto z = [&](int64_t tile, int64_t i) {
    const int64_t at = tile * kTile + i;
    return at < vocabulary ? row[at] / temperature : kLowest;
  };
  int64_t token;
  if (draws[n] < 0) {  // the likeliest, which is the first of its tile that is the peak
    const int64_t tile = find(
                             tiles, [&](int64_t t) { return of_tiles[t].peak == s.peak ? 1.0 : 0.0; }, 0, false)
                             .place;
    token = tile * kTile + find(
                               kTile, [&](int64_t i) { return z(tile, i) == s.peak ? 1.0 : 0.0; }, 0, false)
                               .place;
  } else {
    const auto scale = [&](int64_t t) { return exp(double(of_tiles[t].peak) - double(s.peak)); };
    const Found f = find(
        tiles, [&](int64_t t) { return double(of_tiles[t].sum) * scale(t); }, draws[n], true);
    const float peak = of_tiles[f.place].peak;
    const auto weight = [&](int64_t i) {
      const float one = z(f.place, i);
      return one > kLowest ? double(expf(one - peak)) : 0;
    };
    token = f.place * kTile + find(kTile, weight, f.left / scale(f.place), false).place;
  }
  if (threadIdx.x != 0) return;
  tokens[n] = token, lse[n] = s.peak + logf(s.sum), target_logit[n] = row[token] / temperature;
}

// Logits become the slopes of d_logp logp + d_entropy entropy, in `slopes`, which may be the same memory.
struct Slopes {
  const float *d_logp, *d_entropy, *lse, *entropy;
  const int64_t* targets;
  float temperature, softcap;
};
template <class T>
__global__ void slope(const float* logits, int64_t vocabulary, Slopes s, T* slopes) {
  after_previous();
  const int64_t n = blockIdx.x;
  const float d_logp = s.d_logp[n], lse = s.lse[n], d_entropy = s.d_entropy ? s.d_entropy[n] : 0;
  const float entropy = s.d_entropy ? s.entropy[n] : 0;
  const int64_t target = s.targets[n];
  for (int64_t i = threadIdx.x; i < vocabulary; i += kThreads) {
    const float capped = logits[n * vocabulary + i], log_p = capped / s.temperature - lse;
    float dz = expf(log_p) * (-d_logp - (d_entropy != 0 ? (log_p + entropy) * d_entropy : 0));
    if (i == target) dz += d_logp;
    dz /= s.temperature;
    if (s.softcap > 0) {
      const float part = capped / s.softcap;
      dz *= 1 - part * part;
    }
    slopes[n * vocabulary + i] = element<T>(dz);
  }
}

template <Op op>
struct Logits {
  static constexpr auto traits = traits_of<float>(op);
  explicit Logits(const dse_operation& o) : vocabulary(o.out), softcap(float(o.softcap)) { check_card(o); }

  void run(const dse::Call<op>& call) const {
    if constexpr (op == Op::softcap) {
      launch_cap(call.template out<float>("logits"), call.rows() * vocabulary, softcap, call.raw.stream);
    } else {
      const float* const z = call.template in<float>("logits");
      const float* const temperatures = call.template in<float>("temperatures");
      if constexpr (op == Op::logit_sums)
        launch_sums(z, call.rows(), vocabulary, temperatures, 1.0f, call.template in<int64_t>("targets"),
                    {call.template out<float>("lse"), call.template out<float>("target_logit"),
                     call.template out<float>("mean_logit")},
                    call.raw.stream);
      else
        launch(draw_tokens, call.rows(), kThreads, size_t(tiles_of(vocabulary) + 1) * sizeof(Sums), call.raw.stream, z,
               vocabulary, temperatures, call.template in<double>("draws"), whole_packs<float>(vocabulary, z),
               call.template out<int64_t>("tokens"), call.template out<float>("lse"),
               call.template out<float>("target_logit"));
    }
  }
  int64_t vocabulary;
  float softcap;
};

// The logits of some rows at once, float32, in memory of the call's; backward their slopes, in x's type.
template <Op op, class T, bool invariant = false>
struct LogProb {
  static constexpr auto traits = traits_of<T>(op, invariant);
  static constexpr bool backward = op == Op::log_prob_backward, in_place = sizeof(T) == sizeof(float);
  explicit LogProb(const dse_operation& o) : width(o.in), vocabulary(o.out), softcap(float(o.softcap)), products(o) {
    check_card(o);
  }
  int64_t rows_at_once(int64_t rows) const {
    constexpr int64_t floats = int64_t{1} << 26, multiple = 128;  // 256 MiB
    const int64_t most = floats / vocabulary / multiple * multiple;
    return rows < most ? rows : most > multiple ? most : multiple;
  }
  int64_t logits_bytes(int64_t rows) const {
    return blocks_of(rows_at_once(rows) * vocabulary * int64_t(sizeof(float)), 256) * 256;
  }
  int64_t workspace_bytes(int64_t rows) const {
    if (rows == 0) return 0;
    const int64_t slopes = backward && !in_place ? rows_at_once(rows) * vocabulary * int64_t(sizeof(T)) : 0;
    return Products::kWorkspace + logits_bytes(rows) + slopes;
  }

  void run(const dse::Call<op>& call) const {
    if (call.rows() == 0) return;
    auto* const room = static_cast<char*>(call.raw.workspace);
    auto* const logits = reinterpret_cast<float*>(room + Products::kWorkspace);
    for (int64_t first = 0, step = rows_at_once(call.rows()); first < call.rows(); first += step)
      run_rows(call, first, step < call.rows() - first ? step : call.rows() - first, logits);
  }
  void run_rows(const dse::Call<op>& call, int64_t first, int64_t rows, float* logits) const {
    void* const stream = call.raw.stream;
    const T *x = call.template in<T>("x") + first * width, *head = call.template in<T>("head");
    Product p{.rows = rows, .columns = vocabulary, .inner = width, .a = x, .b = head, .c = logits};
    p.b_transposed = true, p.type = kDtype<T>, p.c_type = DSE_F32;
    p.workspace = call.raw.workspace, p.stream = stream;
    if constexpr (invariant)
      launch_invariant<T>({.rows = rows, .in = width, .out = vocabulary, .x = x, .w = head, .y = logits, .wide = true},
                          stream);
    else
      products.run(p);
    launch_cap(logits, rows * vocabulary, softcap, stream);
    const auto temperature = float(call.real("temperature"));
    const auto part = [&](auto* column) { return column ? column + first : nullptr; };
    const int64_t* const targets = part(call.template in<int64_t>("targets"));
    if constexpr (!backward) {
      launch_sums(logits, rows, vocabulary, nullptr, temperature, targets,
                  {part(call.template out<float>("lse")), part(call.template out<float>("target_logit")),
                   part(call.template out<float>("mean_logit"))},
                  stream);
    } else {
      T* slopes;
      if constexpr (in_place)
        slopes = logits;
      else
        slopes = reinterpret_cast<T*>(reinterpret_cast<char*>(logits) + logits_bytes(call.rows()));
      const Slopes s{part(call.template in<float>("d_logp")),
                     part(call.template in<float>("d_entropy")),
                     part(call.template in<float>("lse")),
                     part(call.template in<float>("entropy")),
                     targets,
                     temperature,
                     softcap};
      launch(slope<T>, rows, kThreads, 0, stream, logits, vocabulary, s, slopes);
      p.a = slopes, p.columns = width, p.inner = vocabulary, p.b_transposed = false;
      p.c = call.template out<T>("dx") + first * width, p.c_type = kDtype<T>;
      products.run(p);
      if (!call.output("dhead").data) return;
      p.rows = vocabulary, p.inner = rows, p.a_transposed = true, p.b = x;
      p.c = call.output("dhead").data, p.c_type = call.output("dhead").dtype, p.accumulate = true;
      products.run(p);
    }
  }
  int64_t width, vocabulary;
  float softcap;
  Products products;
};

template <Op op, class T>
using InvariantLogProb = LogProb<op, T, true>;
template <Op op, class T>
using FastLogProb = LogProb<op, T>;

}  // namespace

void add_head(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<Logits<Op::softcap>>("cuda_softcap"));
  items.push_back(dse::kernel_item<Logits<Op::logit_sums>>("cuda_logit_sums"));
  items.push_back(dse::kernel_item<Logits<Op::draw>>("cuda_draw"));
  add_both<FastLogProb, Op::log_prob>(items, DSE_BOTH("log_prob"));
  add_both<InvariantLogProb, Op::log_prob>(items, DSE_BOTH("log_prob_invariant"));
  add_both<FastLogProb, Op::log_prob_backward>(items, DSE_BOTH("log_prob_backward"));
}

}  // namespace gpu
