// A graphics card on the host, for the sources of plugins/kernels/cuda: a kernel's blocks, or clusters of them, run one
// after the other, and their threads as coroutines that meet at barriers and in shuffles.
//
//   launch(kernel, 4, 256, bytes, nullptr, arguments…);       // has run when it returns
//
// Fresh shared memory holds no numbers. With DSENGINE_EMULATOR=backwards blocks and threads take their turns from the
// last to the first, and what the machine does by itself (copies of tiles, products of them) is done as late as it may
// be: a kernel that lacks a barrier comes to other results then. A barrier that not all threads reach, and a shuffle
// that not all lanes do, end the program, and so does a thread without after_previous() or
// leave_early().
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  dim3() = default;
};

namespace emulator {

// Of the thread that runs.
struct Place {
  dim3 block, thread;
  unsigned char* shared = nullptr;  // its block's dynamic memory
};
extern Place here;
extern dim3 grid, block_size;

void meet_block();
void after_previous();
// Of the lanes' values the one of lane `from`; all 32 lanes call it. size: at most 16 bytes.
void exchange(const void* mine, void* theirs, size_t size, unsigned from);
// Each lane's value, [32] of `size`, where all have come.
const unsigned char* gather(const void* mine, size_t size);

// As gpu.h has them.
void multiply_add(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1);
uint32_t transposed(uint32_t x);

// As hopper.h has them. Addresses are of shared memory: the block's own, or with a block of the cluster in them.
struct Tiles {
  static constexpr int kColumns = 64;
  const uint16_t* first;
  int64_t rows, columns;
  int tile_rows;
};
struct Bytes {  // a barrier in shared memory that waits for arrivals and for bytes
  static constexpr uint8_t kMade = 0x5a;
  int32_t missing;
  uint8_t expected, pending, phase, made;
};
uint32_t address_of(const void* shared);
uint32_t address_in(uint32_t own, unsigned block);
void store_at(uint32_t address, const float (&values)[4]);
void arrive_cluster();
void wait_cluster();
void meet_named(unsigned id, unsigned threads);
void make(Bytes* bytes, unsigned arrivals);
void arrive(Bytes* bytes, uint32_t expected = 0);
void await(Bytes* bytes, unsigned parity);
void copy_tile(void* to, const Tiles& tiles, Bytes* bytes, int column, int row, uint64_t use);
void multiply_tiles(float* sums, int columns, uint64_t a, uint64_t b, bool add);
void commit_tiles();
void await_tiles(unsigned running);

// cluster: so many blocks along x run together.
void run(dim3 blocks, int threads, size_t shared_bytes, unsigned cluster, const std::function<void()>& kernel);

}  // namespace emulator

#define threadIdx (emulator::here.thread)
#define blockIdx (emulator::here.block)
#define blockDim (emulator::block_size)
#define gridDim (emulator::grid)

inline void __syncthreads() { emulator::meet_block(); }
inline void __syncwarp(unsigned = 0xffffffffu) {
  const char none = 0;
  emulator::gather(&none, 1);
}
template <class T>
T __shfl_sync(unsigned, T x, int lane) {
  T other;
  emulator::exchange(&x, &other, sizeof(T), unsigned(lane) % 32);
  return other;
}
template <class T>
T __shfl_xor_sync(unsigned mask, T x, int by) {
  return __shfl_sync(mask, x, int(threadIdx.x % 32) ^ by);
}
template <class T>
T __shfl_up_sync(unsigned mask, T x, unsigned by) {
  const unsigned lane = threadIdx.x % 32;
  return __shfl_sync(mask, x, int(lane < by ? lane : lane - by));
}
inline unsigned __ballot_sync(unsigned, bool x) {
  const char mine = x;
  const unsigned char* const all = emulator::gather(&mine, 1);
  unsigned set = 0;
  for (unsigned lane = 0; lane < 32; ++lane) set |= unsigned(all[lane]) << lane;
  return set;
}
// Of the bytes of x (0 to 3) and y (4 to 7), those that the four digits name.
inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t digits) {
  uint32_t made = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned byte = digits >> 4 * i & 7u;
    made |= ((byte < 4 ? x : y) >> 8 * (byte % 4) & 0xffu) << 8 * i;
  }
  return made;
}
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline float __uint_as_float(uint32_t x) {
  float f;
  std::memcpy(&f, &x, sizeof f);
  return f;
}
inline uint32_t __float_as_uint(float f) {
  uint32_t x;
  std::memcpy(&x, &f, sizeof x);
  return x;
}
