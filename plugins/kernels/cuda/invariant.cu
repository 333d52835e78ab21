// A block computes a tile of y: 64 rows by 64 columns. It reads tiles of x and w by turns into shared memory, the next
// ones into registers meanwhile. In bfloat16 a warp has 16 rows, multiplied by the tensor cores 16 of the sum at a
// time; in float32 a thread has 8 rows by 4 columns, a chain of fused multiply-adds each.
#include "invariant.h"

namespace gpu {
namespace {

constexpr int kTile = 64, kThreads = 128;

// Of the sum so many are read at once, each row of a tile a pack longer than that, so that rows lie in other banks.
template <class T>
inline constexpr int kInner = sizeof(T) == 4 ? 16 : 32;
template <class T>
inline constexpr int kLine = kInner<T> + Pack<T>::kSize;
template <class T>
struct Room {
  alignas(16) T x[kTile * kLine<T>], w[kTile * kLine<T>];
};

// What a thread reads of a tile.
template <class T>
struct Share {
  static constexpr int kPacksOfRow = kInner<T> / Pack<T>::kSize, kPacks = kTile * kPacksOfRow / kThreads;
  Pack<T> packs[kPacks];

  // Of a matrix [rows, width], from (row, i) on; 0 beyond its ends.
  __device__ void read(const T* matrix, int64_t rows, int64_t width, int64_t row, int64_t i, bool whole) {
    for (int q = 0; q < kPacks; ++q) {
      const int at = int(threadIdx.x) + q * kThreads;
      const int64_t n = row + at / kPacksOfRow, first = i + at % kPacksOfRow * Pack<T>::kSize;
      const T* const from = matrix + n * width + first;
      packs[q] = {};
      if (n >= rows || first >= width) continue;
      if (whole)
        packs[q] = *reinterpret_cast<const Pack<T>*>(from);
      else
        for (int j = 0; j < Pack<T>::kSize; ++j)
          if (first + j < width) packs[q].at[j] = from[j];
    }
  }
  __device__ void write(T* tile) const {
    for (int q = 0; q < kPacks; ++q) {
      const int at = int(threadIdx.x) + q * kThreads;
      *reinterpret_cast<Pack<T>*>(tile + at / kPacksOfRow * kLine<T> + at % kPacksOfRow * Pack<T>::kSize) = packs[q];
    }
  }
};

// The elements of the tile of y that a thread sums.
template <class T>
struct Sums;

template <>
struct Sums<bf16> {
  static constexpr int kColumns = kTile / 8;
  float of[kColumns][4] = {};

  static __device__ int lane() { return int(threadIdx.x) % kWarp; }
  static __device__ int row(int i) { return int(threadIdx.x) / kWarp * 16 + i / 2 * 8 + lane() / 4; }
  __device__ void add(const Room<bf16>& room) {
    const auto pair = [&](const bf16* tile, int row, int k) {
      return *reinterpret_cast<const uint32_t*>(tile + row * kLine<bf16> + k);
    };
    for (int k = lane() % 4 * 2; k < kInner<bf16>; k += 16) {
      const uint32_t a0 = pair(room.x, row(0), k), a1 = pair(room.x, row(2), k), a2 = pair(room.x, row(0), k + 8),
                     a3 = pair(room.x, row(2), k + 8);
      DSE_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        const int column = c * 8 + lane() / 4;
        multiply_add(of[c], a0, a1, a2, a3, pair(room.w, column, k), pair(room.w, column, k + 8));
      }
    }
  }
  // f(row, column, sum) of the tile.
  template <class F>
  __device__ void each(const F& f) const {
    DSE_UNROLL
    for (int c = 0; c < kColumns; ++c)
      for (int i = 0; i < 4; ++i) f(row(i), c * 8 + lane() % 4 * 2 + i % 2, of[c][i]);
  }
};

template <>
struct Sums<float> {
  static constexpr int kRows = 8, kColumns = 4, kAcross = kTile / kColumns;
  float of[kRows][kColumns] = {};

  static __device__ int row(int i) { return int(threadIdx.x) / kAcross + i * (kThreads / kAcross); }
  static __device__ int column(int j) { return int(threadIdx.x) % kAcross + j * kAcross; }
  __device__ void add(const Room<float>& room) {
    for (int k = 0; k < kInner<float>; ++k) {
      float x[kRows], w[kColumns];
      for (int i = 0; i < kRows; ++i) x[i] = room.x[row(i) * kLine<float> + k];
      for (int j = 0; j < kColumns; ++j) w[j] = room.w[column(j) * kLine<float> + k];
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kColumns; ++j) of[i][j] = fmaf(x[i], w[j], of[i][j]);
    }
  }
  template <class F>
  __device__ void each(const F& f) const {
    for (int i = 0; i < kRows; ++i)
      for (int j = 0; j < kColumns; ++j) f(row(i), column(j), of[i][j]);
  }
};

// Blocks (tiles of rows, tiles of columns).
template <class T>
__global__ void __launch_bounds__(kThreads) multiply_invariant(InvariantLinear<T> p, bool whole) {
  after_previous();
  Room<T>& room = *shared_memory<Room<T>>();
  const int64_t first_row = blockIdx.x * int64_t{kTile}, first_column = blockIdx.y * int64_t{kTile};
  Share<T> x, w;
  Sums<T> sums;
  const auto read = [&](int64_t k) {
    x.read(p.x, p.rows, p.in, first_row, k, whole), w.read(p.w, p.out, p.in, first_column, k, whole);
  };
  read(0);
  for (int64_t k = 0; k < p.in; k += kInner<T>) {
    __syncthreads();
    x.write(room.x), w.write(room.w);
    __syncthreads();
    read(k + kInner<T>);
    sums.add(room);
  }
  sums.each([&](int row, int column, float sum) {
    const int64_t n = first_row + row, i = first_column + column, at = n * p.out + i;
    if (n >= p.rows || i >= p.out) return;
    if (p.bias) sum += number(p.bias[i]);
    if (p.residual) sum += number(p.residual[at]);
    if (p.wide)
      static_cast<float*>(p.y)[at] = sum;
    else
      static_cast<T*>(p.y)[at] = element<T>(sum);
  });
}

}  // namespace

template <class T>
void launch_invariant(const InvariantLinear<T>& linear, void* stream) {
  const dim3 grid(unsigned(blocks_of(linear.rows, kTile)), unsigned(blocks_of(linear.out, kTile)));
  launch(multiply_invariant<T>, grid, kThreads, sizeof(Room<T>), stream, linear,
         whole_packs<T>(linear.in, linear.x, linear.w));
}
template void launch_invariant(const InvariantLinear<float>& linear, void* stream);
template void launch_invariant(const InvariantLinear<bf16>& linear, void* stream);

}  // namespace gpu
