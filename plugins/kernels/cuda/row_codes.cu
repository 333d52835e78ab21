// Rows as codes of few bits: 8-bit moments (Dettmers et al. 2022) there and back, NF4 (Dettmers et al. 2023) back. A
// warp a block of a row.
#include "kernels.h"

namespace gpu {
namespace {

using dse::Op;

constexpr int kWarps = 8, kThreads = kWarps * kWarp, kMostValues = 256;

template <class T>
struct CodedRows {
  int64_t rows, width, block, row_bytes;
  const float* values;
  int value_count;
  uint8_t* codes;
  float* scales;
  const T* x;
  T* y;

  __host__ __device__ int64_t blocks_of_row() const { return (width + block - 1) / block; }
};

// The block of a row that a warp has.
struct Span {
  int64_t row, index, first, end;  // elements [first, end) of the row
};
template <class T>
__device__ bool span_of(const CodedRows<T>& r, Span& span) {
  const int64_t warp = blockIdx.x * int64_t(kWarps) + threadIdx.x / kWarp;
  span.row = warp / r.blocks_of_row(), span.index = warp % r.blocks_of_row();
  span.first = span.index * r.block;
  span.end = span.first + r.block < r.width ? span.first + r.block : r.width;
  return span.row < r.rows;
}

template <class T>
__global__ void encode(CodedRows<T> r) {
  after_previous();
  float* const middles = shared_memory<float>();
  for (int i = int(threadIdx.x); i + 1 < r.value_count; i += kThreads) middles[i] = (r.values[i] + r.values[i + 1]) / 2;
  __syncthreads();
  Span span;
  if (!span_of(r, span)) return;
  const T* const x = r.x + span.row * r.width;
  const int lane = int(threadIdx.x) % kWarp;
  float largest = 0;
  for (int64_t i = span.first + lane; i < span.end; i += kWarp) largest = fmaxf(largest, fabsf(number(x[i])));
  largest = warp_max(largest);
  if (lane == 0) r.scales[span.row * r.blocks_of_row() + span.index] = largest;
  const float divisor = largest > 0 ? largest : 1;
  for (int64_t i = span.first + lane; i < span.end; i += kWarp) {
    const float scaled = number(x[i]) / divisor;
    int below = 0, above = r.value_count - 1;  // the first middle that is not below it, or none
    while (below < above) {
      const int middle = (below + above) / 2;
      if (middles[middle] < scaled)
        below = middle + 1;
      else
        above = middle;
    }
    r.codes[span.row * r.row_bytes + i] = uint8_t(below);
  }
}

template <class T>
__global__ void decode(CodedRows<T> r) {
  after_previous();
  float* const values = shared_memory<float>();
  for (int i = int(threadIdx.x); i < r.value_count; i += kThreads) values[i] = r.values[i];
  __syncthreads();
  Span span;
  if (!span_of(r, span)) return;
  const uint8_t* const codes = r.codes + span.row * r.row_bytes;
  const float scale = r.scales[span.row * r.blocks_of_row() + span.index];
  for (int64_t i = span.first + threadIdx.x % kWarp; i < span.end; i += kWarp) {
    const int code = r.value_count == 16 ? codes[i / 2] >> (i % 2 == 0 ? 4 : 0) & 15 : codes[i];
    r.y[span.row * r.width + i] = element<T>(values[code] * scale);
  }
}

template <Op op, class T>
struct RowCodes {
  static constexpr auto traits = traits_of<T>(op);
  explicit RowCodes(const dse_operation& o) { check_card(o); }
  void run(const dse::Call<op>& call) const {
    CodedRows<T> r{};
    r.rows = call.rows(), r.width = call.integer("width"), r.block = call.integer("block");
    const dse_array& values = call.input("values");
    r.values = static_cast<const float*>(values.data), r.value_count = int(values.shape[0]);
    if (r.value_count > kMostValues) throw dse::Failure("a code of more than 256 values");
    r.row_bytes = r.value_count == 16 ? (r.width + 1) / 2 : r.width;
    if constexpr (op == Op::encode_rows) {
      r.x = call.template in<T>("x");
      r.codes = call.template out<uint8_t>("codes"), r.scales = call.template out<float>("scales");
    } else {
      r.codes = static_cast<uint8_t*>(call.input("codes").data);
      r.scales = static_cast<float*>(call.input("scales").data), r.y = call.template out<T>("y");
    }
    constexpr auto kernel = op == Op::encode_rows ? encode<T> : decode<T>;
    launch(kernel, blocks_of(r.rows * r.blocks_of_row(), kWarps), kThreads, kMostValues * sizeof(float),
           call.raw.stream, r);
  }
};

}  // namespace

void add_row_codes(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<RowCodes<Op::encode_rows, float>>("cuda_encode_rows"));
  add_both<RowCodes, Op::decode_rows>(items, DSE_BOTH("decode_rows"));
}

}  // namespace gpu
