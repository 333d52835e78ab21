// Attention of any head size up to 256, with windows and softcaps, over a batch and over a cache: a warp a query. Keys
// go by 32 at a time, counted from a sequence's first; a lane has the score of one of them, and then a part of the sum.
#include <type_traits>

#include "attention.h"

namespace gpu {
namespace {

using dse::Op;

constexpr int kWarps = 4, kThreads = kWarps * kWarp;

// The product of a row in shared memory with one of the card's.
template <class T>
__device__ float dot(const float* a, const T* b, int64_t width) {
  float sum = 0;
  if (width % Pack<T>::kSize == 0 && reinterpret_cast<uintptr_t>(b) % sizeof(Pack<T>) == 0)
    for (int64_t i = 0; i < width; i += Pack<T>::kSize) {
      const Numbers<T> n = load(b, i, width, true);
      for (int j = 0; j < Pack<T>::kSize; ++j) sum = fmaf(a[i + j], n.at[j], sum);
    }
  else
    for (int64_t i = 0; i < width; ++i) sum = fmaf(a[i], number(b[i]), sum);
  return sum;
}

// The warp's shared memory: 32 floats, and those of rows.
__device__ inline float* warp_memory(int64_t of_rows) {
  return shared_memory<float>() + threadIdx.x / kWarp * (kWarp + of_rows);
}

// A row of the card's into the warp's shared memory.
template <class T>
__device__ void keep(const T* row, int64_t width, float* to) {
  for (int64_t i = threadIdx.x % kWarp; i < width; i += kWarp) to[i] = number(row[i]);
}

// sums[p] += weights[j] times element (lane + 32 p) of row(j), for j < count in order. weights: each lane's, in the
// warp's shared memory.
template <int parts, class F>
__device__ void add_rows(const float* weights, int count, int64_t width, float (&sums)[parts], const F& row) {
  for (int j = 0; j < count; ++j) {
    const float w = weights[j];
    const auto* const r = row(j);
    for (int p = 0; p < parts; ++p) {
      const int64_t i = threadIdx.x % kWarp + p * kWarp;
      if (i < width) sums[p] = fmaf(w, number(r[i]), sums[p]);
    }
  }
}
__device__ inline void share(float weight, float* weights) {
  __syncwarp();  // those of before have been read
  weights[threadIdx.x % kWarp] = weight;
  __syncwarp();
}
template <class T, int parts>
__device__ void put(const float (&sums)[parts], int64_t width, T* to) {
  for (int p = 0; p < parts; ++p) {
    const int64_t i = threadIdx.x % kWarp + p * kWarp;
    if (i < width) to[i] = element<T>(sums[p]);
  }
}

// A warp's query: its row, head, and the keys [first, last] that it sees.
struct Query {
  int64_t row, head, kv, sequence, first, last;
};
template <class T>
__device__ Query query_of(const Attending<T>& a) {
  Query q{};
  q.row = blockIdx.x * int64_t(kWarps) + threadIdx.x / kWarp, q.head = blockIdx.y, q.kv = q.head / a.group;
  if (q.row >= a.rows) return q;
  q.sequence = a.sequences.of_row(q.row), q.last = a.sequences.place(q.sequence, q.row);
  q.first = a.scores.first_key(q.last);
  return q;
}

template <class T, int parts>
__global__ void attend(Attending<T> a) {
  after_previous();
  const Query q = query_of(a);
  if (q.row >= a.rows) return;  // the whole warp
  float *const weights = warp_memory(a.width), *const query = weights + kWarp;
  keep(a.q.row(q.row, q.head), a.width, query);
  __syncwarp();
  const int lane = int(threadIdx.x) % kWarp;
  float sums[parts] = {}, peak = -INFINITY, total = 0, slope = 0;
  for (int64_t begin = q.first / kWarp * kWarp; begin <= q.last; begin += kWarp) {
    const int64_t j = begin + lane;
    const bool seen = j >= q.first && j <= q.last;
    const float s =
        seen ? a.scores.of(dot(query, a.k.row(a.sequences.key_row(q.sequence, j), q.kv), a.width), &slope) : -INFINITY;
    const float higher = fmaxf(peak, warp_max(s)), before = expf(peak - higher), p = seen ? expf(s - higher) : 0;
    peak = higher, total = fmaf(total, before, warp_sum(p));
    for (float& sum : sums) sum *= before;
    // Keys before the first, in its tile, weigh nothing and are not read.
    const int skipped = q.first > begin ? int(q.first - begin) : 0;
    share(p, weights);
    const int64_t from = begin + skipped, count = (q.last + 1 < begin + kWarp ? q.last + 1 : begin + kWarp) - from;
    add_rows(weights + skipped, int(count), a.width, sums,
             [&](int r) { return a.v.row(a.sequences.key_row(q.sequence, from + r), q.kv); });
  }
  for (float& sum : sums) sum /= total;
  put(sums, a.width, a.to + (q.row * a.heads + q.head) * a.width);
  if (a.new_lse && lane == 0) a.new_lse[q.row * a.heads + q.head] = peak + logf(total);
}

// delta = d_out · out, of each query: what the slope of its softmax takes off.
template <class T>
__global__ void output_slopes(Attending<T> a) {
  after_previous();
  const int64_t row = blockIdx.x * int64_t(kWarps) + threadIdx.x / kWarp, head = blockIdx.y;
  if (row >= a.rows) return;
  const T *d = a.d_out.row(row, head), *out = a.out + (row * a.heads + head) * a.width;
  float sum = 0;
  for (int64_t i = threadIdx.x % kWarp; i < a.width; i += kWarp) sum = fmaf(number(d[i]), number(out[i]), sum);
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) a.delta[row * a.heads + head] = sum;
}

template <class T, int parts>
__global__ void attend_backward_queries(Attending<T> a) {
  after_previous();
  const Query q = query_of(a);
  if (q.row >= a.rows) return;
  float *const weights = warp_memory(2 * a.width), *const query = weights + kWarp, *const d = query + a.width;
  keep(a.q.row(q.row, q.head), a.width, query), keep(a.d_out.row(q.row, q.head), a.width, d);
  __syncwarp();
  const float lse = a.lse[q.row * a.heads + q.head], delta = a.delta[q.row * a.heads + q.head];
  float sums[parts] = {};
  for (int64_t begin = q.first; begin <= q.last; begin += kWarp) {
    const int64_t j = begin + threadIdx.x % kWarp, count = q.last + 1 - begin < kWarp ? q.last + 1 - begin : kWarp;
    float ds = 0;
    if (j <= q.last) {
      const int64_t row = a.sequences.key_row(q.sequence, j);
      float slope = 0;
      const float s = a.scores.of(dot(query, a.k.row(row, q.kv), a.width), &slope);
      ds = expf(s - lse) * (dot(d, a.v.row(row, q.kv), a.width) - delta) * slope;
    }
    share(ds, weights);
    add_rows(weights, int(count), a.width, sums,
             [&](int r) { return a.k.row(a.sequences.key_row(q.sequence, begin + r), q.kv); });
  }
  put(sums, a.width, a.to + (q.row * a.heads + q.head) * a.width);
}

// A warp a key: over the queries that see it, head by head and in order.
template <class T, int parts>
__global__ void attend_backward_keys(Attending<T> a) {
  after_previous();
  const int64_t row = blockIdx.x * int64_t(kWarps) + threadIdx.x / kWarp, kv = blockIdx.y;
  if (row >= a.rows) return;
  float *const weights = warp_memory(2 * a.width), *const key = weights + kWarp, *const value = key + a.width;
  keep(a.k.row(row, kv), a.width, key), keep(a.v.row(row, kv), a.width, value);
  __syncwarp();
  const int64_t end = a.sequences.offsets[a.sequences.of_row(row) + 1];
  const int64_t last = a.scores.window > 0 && row + a.scores.window < end ? row + a.scores.window : end;
  float dk[parts] = {}, dv[parts] = {};
  for (int64_t head = kv * a.group; head < (kv + 1) * a.group; ++head)
    for (int64_t begin = row; begin < last; begin += kWarp) {
      const int64_t n = begin + threadIdx.x % kWarp, count = last - begin < kWarp ? last - begin : kWarp;
      float p = 0, ds = 0;
      if (n < last) {
        float slope = 0;
        const float s = a.scores.of(dot(key, a.q.row(n, head), a.width), &slope);
        p = expf(s - a.lse[n * a.heads + head]);
        ds = p * (dot(value, a.d_out.row(n, head), a.width) - a.delta[n * a.heads + head]) * slope;
      }
      share(p, weights);
      add_rows(weights, int(count), a.width, dv, [&](int r) { return a.d_out.row(begin + r, head); });
      share(ds, weights);
      add_rows(weights, int(count), a.width, dk, [&](int r) { return a.q.row(begin + r, head); });
    }
  const int64_t to = (row * (a.heads / a.group) + kv) * a.width;
  put(dk, a.width, a.dk + to), put(dv, a.width, a.dv + to);
}

// The kernel for heads of a width: kernels(1), of up to 32, …
template <int parts>
using Up = std::integral_constant<int, parts>;
template <class T, class F>
void (*of_width(int64_t width, const F& kernels))(Attending<T>) {
  return width <= 32    ? kernels(Up<1>())
         : width <= 64  ? kernels(Up<2>())
         : width <= 128 ? kernels(Up<4>())
                        : kernels(Up<8>());
}

// In bfloat16 a cache's single queries have a kernel of their own, unless a row shall have the bits that it has in a
// batch.
template <Op op, class T, bool invariant = true>
struct Attention {
  static constexpr bool cached = op == Op::cached_attention, backward = op == Op::attention_backward;
  static constexpr auto traits = traits_of<T>(op, invariant);
  explicit Attention(const dse_operation& o)
      : heads(o.heads), kv_heads(o.kv_heads), width(o.head_dim), scores{float(o.scale), float(o.softcap), o.window} {
    check_card(o);
    if (width > 256) throw dse::Unsupported("heads of more than 256");
  }
  int64_t workspace_bytes(int64_t rows) const { return backward ? rows * heads * int64_t(sizeof(float)) : 0; }

  void run(const dse::Call<op>& call) const {
    Attending<T> a{};
    a.rows = call.rows(), a.heads = heads, a.group = heads / kv_heads, a.width = width, a.scores = scores;
    a.sequences.offsets = call.template in<int64_t>("offsets");
    a.sequences.count = call.input("offsets").shape[0] - 1;
    a.q = heads_of<T>(call.input("q"));
    if constexpr (cached) {
      a.k = cached_heads_of<T>(call.input("keys")), a.v = cached_heads_of<T>(call.input("values"));
      a.sequences.blocks = call.template in<int64_t>("blocks");
      a.sequences.key_counts = call.template in<int64_t>("key_counts");
      a.sequences.blocks_of_sequence = call.input("blocks").shape[1];
      a.sequences.block_size = call.input("keys").shape[1];
    } else {
      a.k = heads_of<T>(call.input("k")), a.v = heads_of<T>(call.input("v"));
    }
    if constexpr (backward) {
      run_backward(call, a);
    } else {
      a.to = call.template out<T>("out");
      if constexpr (!invariant)
        if (a.rows == a.sequences.count && attends_rows(a)) return attend_rows(a, call.raw.stream);
      if constexpr (!cached) a.new_lse = call.template out<float>("lse");
      go(of_width<T>(width, [](auto parts) { return attend<T, decltype(parts)::value>; }), heads, 1, call, a);
    }
  }
  void run_backward(const dse::Call<op>& call, Attending<T>& a) const {
    if constexpr (backward) {
      a.d_out = heads_of<T>(call.input("d_out")), a.out = call.template in<T>("out");
      a.lse = call.template in<float>("lse"), a.delta = static_cast<float*>(call.raw.workspace);
      a.to = call.template out<T>("dq"), a.dk = call.template out<T>("dk"), a.dv = call.template out<T>("dv");
      go(output_slopes<T>, heads, 0, call, a);
      go(of_width<T>(width, [](auto parts) { return attend_backward_queries<T, decltype(parts)::value>; }), heads, 2,
         call, a);
      go(of_width<T>(width, [](auto parts) { return attend_backward_keys<T, decltype(parts)::value>; }), kv_heads, 2,
         call, a);
    }
  }
  // With room for `rows_kept` rows of each warp.
  void go(void (*kernel)(Attending<T>), int64_t of_heads, int64_t rows_kept, const dse::Call<op>& call,
          const Attending<T>& a) const {
    launch(kernel, dim3(unsigned(blocks_of(a.rows, kWarps)), unsigned(of_heads)), kThreads,
           size_t(kWarps * (kWarp + rows_kept * width)) * sizeof(float), call.raw.stream, a);
  }

  int64_t heads, kv_heads, width;
  Scores scores;
};

// A token of each sequence, from q | k | v on.
struct CachedStep {
  static constexpr auto traits = traits_of<bf16>(Op::cached_step, false);
  explicit CachedStep(const dse_operation& o)
      : heads(o.heads),
        kv_heads(o.kv_heads),
        width(o.head_dim),
        scores{float(o.scale), float(o.softcap), o.window},
        turning(o) {
    check_card(o);
    if (width != 64 && width != 128) throw dse::Unsupported("heads but those of 64 and 128");
  }
  void run(const dse::Call<Op::cached_step>& call) const {
    Attending<bf16> a{};
    a.rows = call.rows(), a.heads = heads, a.group = heads / kv_heads, a.width = width, a.scores = scores;
    a.sequences = {call.in<int64_t>("offsets"),    call.input("offsets").shape[0] - 1, call.in<int64_t>("blocks"),
                   call.in<int64_t>("key_counts"), call.input("blocks").shape[1],      call.output("keys").shape[1]};
    a.k = cached_heads_of<bf16>(call.output("keys")), a.v = cached_heads_of<bf16>(call.output("values"));
    a.to = call.out<bf16>("out");
    attend_new_tokens(a,
                      {call.in<bf16>("qkv"), kv_heads, call.in<int64_t>("positions"), call.in<int64_t>("lengths"),
                       call.in<int64_t>("rows"), call.out<bf16>("keys"), call.out<bf16>("values"), turning},
                      call.raw.stream);
  }
  int64_t heads, kv_heads, width;
  Scores scores;
  Turning turning;
};

template <Op op, class T>
using Invariant = Attention<op, T>;

}  // namespace

void add_attention(std::deque<dse::Item>& items) {
  add_both<Invariant, Op::attention>(items, DSE_BOTH("attention"));
  add_both<Invariant, Op::attention_backward>(items, DSE_BOTH("attention_backward"));
  items.push_back(dse::kernel_item<CachedStep>("cuda_cached_step_bf16"));
  items.push_back(dse::kernel_item<Invariant<Op::cached_attention, float>>("cuda_cached_attention"));
  items.push_back(dse::kernel_item<Attention<Op::cached_attention, bf16, false>>("cuda_cached_attention_bf16"));
  items.push_back(dse::kernel_item<Invariant<Op::cached_attention, bf16>>("cuda_cached_attention_invariant_bf16"));
}

}  // namespace gpu
