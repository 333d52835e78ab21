// Rows that are copied, and gradients added to rows: embeddings, and keys and values that enter a cache.
#include "kernels.h"

namespace gpu {

namespace {

using dse::Op;

// to[to_rows ? to_rows[n] : n] = from[from_rows ? from_rows[n] : n]. A block a row, of as many such copies as blocks
// along y.
template <class T>
struct Copy {
  int64_t width;
  const T* from;
  int64_t from_stride;
  T* to;
  int64_t to_stride;
  const int64_t *from_rows, *to_rows;
  bool whole;
};
template <class T>
__global__ void copy_rows(Copy<T> first, Copy<T> second) {
  after_previous();
  const Copy<T> c = blockIdx.y == 0 ? first : second;
  const int64_t n = blockIdx.x;
  const T* const from = c.from + (c.from_rows ? c.from_rows[n] : n) * c.from_stride;
  T* const to = c.to + (c.to_rows ? c.to_rows[n] : n) * c.to_stride;
  if (c.whole)
    each_pack<T>(c.width,
                 [&](int64_t i) { *reinterpret_cast<Pack<T>*>(to + i) = *reinterpret_cast<const Pack<T>*>(from + i); });
  else
    for (int64_t i = threadIdx.x; i < c.width; i += blockDim.x) to[i] = from[i];
}
template <class T>
void copy(Copy<T> first, const Copy<T>* second, int64_t rows, void* stream) {
  const auto is_whole = [](const Copy<T>& c) {
    return whole_packs<T>(c.width, c.from, c.to) && c.from_stride % Pack<T>::kSize == 0 &&
           c.to_stride % Pack<T>::kSize == 0;
  };
  Copy<T> other = second ? *second : first;
  first.whole = is_whole(first), other.whole = is_whole(other);
  launch(copy_rows<T>, dim3(unsigned(rows), second ? 2 : 1), row_threads<T>(first.width), 0, stream, first, other);
}

// Which threads of the block hold `x` of, a bit for each: the same words for all. words: [threads / 32] of the block's
// shared memory.
__device__ inline void gather_bits(bool x, unsigned* words) {
  __syncthreads();
  const unsigned bits = __ballot_sync(kAllLanes, x);
  if (threadIdx.x % kWarp == 0) words[threadIdx.x / kWarp] = bits;
  __syncthreads();
}

// table[ids[n]] += each dy[n] of that id, in order: done by the blocks of the id's first row. D: the table's type.
constexpr int kAddThreads = 128, kAddWords = kAddThreads / kWarp;
template <class T, class D>
__global__ void add_rows(const T* dy, const int64_t* ids, int64_t rows, int64_t width, D* table) {
  after_previous();
  const int64_t first = blockIdx.x, id = ids[first], i = blockIdx.y * int64_t(kAddThreads) + threadIdx.x;
  unsigned* const words = shared_memory<unsigned>();
  bool before = false;
  for (int64_t n = threadIdx.x; n < first; n += kAddThreads) before |= ids[n] == id;
  gather_bits(before, words);
  for (int w = 0; w < kAddWords; ++w)
    if (words[w] != 0) return;  // all of the block
  float sum = i < width ? number(table[id * width + i]) : 0;
  for (int64_t begin = first; begin < rows; begin += kAddThreads) {
    const int64_t n = begin + threadIdx.x;
    gather_bits(n < rows && ids[n] == id, words);
    for (int w = 0; w < kAddWords; ++w)
      for (unsigned left = words[w]; left != 0; left &= left - 1) {
        const int64_t row = begin + w * kWarp + __ffs(int(left)) - 1;
        if (i < width) sum += number(dy[row * width + i]);
      }
  }
  if (i < width) table[id * width + i] = element<D>(sum);
}

template <class D>
__global__ void add_in_order(Parts parts, D* to) {
  after_previous();
  const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (i >= parts.width) return;
  float sum = 0;
  for (int64_t p = 0; p < parts.count; ++p) sum += parts.first[p * parts.stride + i];
  to[i] = element<D>(number(to[i]) + sum);
}

template <Op op, class T>
struct Embedding {
  static constexpr auto traits = traits_of<T>(op);
  explicit Embedding(const dse_operation& o) : width(o.out) { check_card(o); }
  void run(const dse::Call<op>& call) const {
    const int64_t* const ids = call.template in<int64_t>("ids");
    if constexpr (op == Op::embedding) {
      copy<T>({width, call.template in<T>("table"), width, call.template out<T>("y"), width, ids, nullptr, false},
              nullptr, call.rows(), call.raw.stream);
    } else {
      const T* const dy = call.template in<T>("dy");
      if (call.output("dtable").dtype == DSE_F32)
        add(dy, ids, call.rows(), call.template out<float>("dtable"), call.raw.stream);
      else
        add(dy, ids, call.rows(), call.template out<bf16>("dtable"), call.raw.stream);
    }
  }
  template <class D>
  void add(const T* dy, const int64_t* ids, int64_t rows, D* table, void* stream) const {
    launch(add_rows<T, D>, dim3(unsigned(rows), unsigned(blocks_of(width, kAddThreads))), kAddThreads,
           kAddWords * sizeof(unsigned), stream, dy, ids, rows, width, table);
  }
  int64_t width;
};

template <Op op, class T>
struct CacheWrite {
  static constexpr auto traits = traits_of<T>(op);
  explicit CacheWrite(const dse_operation& o) : heads(o.kv_heads), head_dim(o.head_dim) { check_card(o); }
  void run(const dse::Call<op>& call) const {
    // A token's heads lie side by side, as one product makes them; else they go head by head.
    const auto side_by_side = [&](const dse_array& from) { return from.strides[1] == head_dim; };
    const dse_array &k = call.input("k"), &v = call.input("v");
    const bool together = side_by_side(k) && side_by_side(v);
    const auto written = [&](const dse_array& from, T* to, int64_t head) -> Copy<T> {
      return {together ? heads * head_dim : head_dim,
              static_cast<const T*>(from.data) + head * from.strides[1],
              from.strides[0],
              to + head * head_dim,
              heads * head_dim,
              nullptr,
              call.template in<int64_t>("rows"),
              false};
    };
    for (int64_t h = 0; h < (together ? 1 : heads); ++h) {
      const Copy<T> values = written(v, call.template out<T>("values"), h);
      copy<T>(written(k, call.template out<T>("keys"), h), &values, call.rows(), call.raw.stream);
    }
  }
  int64_t heads, head_dim;
};

}  // namespace

void add_parts(const Parts& parts, const dse_array& to, void* stream) {
  if (!to.data) return;
  const int64_t blocks = blocks_of(parts.width, 128);
  if (to.dtype == DSE_F32)
    launch(add_in_order<float>, blocks, 128, 0, stream, parts, static_cast<float*>(to.data));
  else
    launch(add_in_order<bf16>, blocks, 128, 0, stream, parts, static_cast<bf16*>(to.data));
}

void add_rows(std::deque<dse::Item>& items) {
  add_both<Embedding, Op::embedding>(items, DSE_BOTH("embedding"));
  add_both<Embedding, Op::embedding_weight_backward>(items, DSE_BOTH("embedding_weight_backward"));
  add_both<CacheWrite, Op::cache_write>(items, DSE_BOTH("cache_write"));
}

}  // namespace gpu
