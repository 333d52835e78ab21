// What cards of compute capability 9.0 have besides: tiles of a matrix that the machine copies to shared memory,
// barriers that wait for their bytes, products of such tiles by a group of four warps, and clusters of blocks that
// write to each other's shared memory (PTX ISA 9.0: cp.async.bulk.tensor, mbarrier, wgmma, barrier.cluster).
//
//   const Tiles tiles = tiles_of(x, rows, columns, 64);       // on the host; a kernel's __grid_constant__ parameter
//   make(&bytes, 1);                                          // one thread, once; then __syncthreads()
//   arrive(&bytes, 64 * kTileBytes), copy_tile(memory, tiles, &bytes, column, row, kReadOnce);       // one thread
//   await(&bytes, 0);                                         // who reads: the barrier's first turn is over
//
// Only in code for 9.0 itself (DSE_HOPPER). The tests have an emulator of it.
#pragma once
#include "gpu.h"

#ifdef __CUDACC__
#include <cuda.h>
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define DSE_HOPPER
#endif
#else
#define DSE_HOPPER
#endif

namespace gpu {

// A tile is so many columns of bfloat16, a row of it 128 bytes, whose eight pieces of 16 bytes lie exchanged by the
// row's place in eight rows ("128-byte swizzle"). It begins at a multiple of 1024 bytes.
inline constexpr int kTileColumns = 64, kTileBytes = 2 * kTileColumns;

// Whether kernels for 9.0 run on the operation's card.
bool is_hopper(const dse_operation& operation);

#ifdef __CUDACC__
using Tiles = CUtensorMap;
using Bytes = uint64_t;
#else
using emulator::Bytes;
using emulator::Tiles;
#endif

// Of a dense matrix [rows, columns]: tiles of tile_rows (256 at most) by 64. What lies beyond its ends reads as 0.
// Both of its pointer and a row's bytes are multiples of 16.
Tiles tiles_of(const bf16* first, int64_t rows, int64_t columns, int tile_rows);

// What a cache does with a tile that is read: it goes first, or last.
inline constexpr uint64_t kReadOnce = 0x12F0000000000000ull, kReadOften = 0x14F0000000000000ull;

#if defined(__CUDACC__) && defined(DSE_HOPPER)

__device__ inline uint32_t address_of(const void* shared) { return uint32_t(__cvta_generic_to_shared(shared)); }

// ---- barriers that wait for arrivals and bytes: `parity` of a turn is 0, 1, 0, …
__device__ inline void make(Bytes* bytes, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address_of(bytes)), "r"(arrivals));
}
__device__ inline void show_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ inline void arrive(Bytes* bytes) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address_of(bytes)) : "memory");
}
__device__ inline void arrive(Bytes* bytes, uint32_t expected) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address_of(bytes)), "r"(expected)
               : "memory");
}
__device__ inline void await(Bytes* bytes, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again_%=:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra again_%=;\n}" ::"r"(
          address_of(bytes)),
      "r"(parity)
      : "memory");
}

// ---- copies, by one thread
__device__ inline void fetch(const Tiles& tiles) { asm volatile("prefetch.tensormap [%0];" ::"l"(&tiles)); }
__device__ inline void copy_tile(void* to, const Tiles& tiles, Bytes* bytes, int column, int row, uint64_t use) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(address_of(to)),
      "l"(&tiles), "r"(address_of(bytes)), "r"(column), "r"(row), "l"(use)
      : "memory");
}

// ---- products
// Of a tile in shared memory: rows of 128 bytes, swizzled, eight rows after eight rows.
__device__ inline uint64_t operand(uint32_t address) {
  return uint64_t((address & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}
#define DSE_8(o)                                                                                                \
  "+f"(sums[o]), "+f"(sums[o + 1]), "+f"(sums[o + 2]), "+f"(sums[o + 3]), "+f"(sums[o + 4]), "+f"(sums[o + 5]), \
      "+f"(sums[o + 6]), "+f"(sums[o + 7])
#define DSE_MULTIPLY(columns, registers, a, b, add)                                         \
  "{\n.reg .pred p;\nsetp.ne.b32 p, " add ", 0;\nwgmma.mma_async.sync.aligned.m64n" columns \
  "k16.f32.bf16.bf16 {" registers "}, " a ", " b ", p, 1, 1, 0, 0;\n}\n"
// sums [64, N] (+)= a [64, 16] b [N, 16]ᵀ, as the four warps hold it (m64nNk16): lane 4 g + t of warp w has in 4 j + 2
// h + i row 16 w + 8 h + g and column 8 j + 2 t + i. Not done before await_products.
__device__ inline void multiply(float (&sums)[4], uint64_t a, uint64_t b, int add) {
  asm volatile(DSE_MULTIPLY("8", "%0, %1, %2, %3", "%4", "%5", "%6")
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "l"(a), "l"(b), "r"(add));
}
#define DSE_R8 "%0, %1, %2, %3, %4, %5, %6, %7"
__device__ inline void multiply(float (&sums)[8], uint64_t a, uint64_t b, int add) {
  asm volatile(DSE_MULTIPLY("16", DSE_R8, "%8", "%9", "%10") : DSE_8(0) : "l"(a), "l"(b), "r"(add));
}
#define DSE_R16 DSE_R8 ", %8, %9, %10, %11, %12, %13, %14, %15"
__device__ inline void multiply(float (&sums)[16], uint64_t a, uint64_t b, int add) {
  asm volatile(DSE_MULTIPLY("32", DSE_R16, "%16", "%17", "%18") : DSE_8(0), DSE_8(8) : "l"(a), "l"(b), "r"(add));
}
#define DSE_R32 DSE_R16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
__device__ inline void multiply(float (&sums)[32], uint64_t a, uint64_t b, int add) {
  asm volatile(DSE_MULTIPLY("64", DSE_R32, "%32", "%33", "%34")
               : DSE_8(0), DSE_8(8), DSE_8(16), DSE_8(24)
               : "l"(a), "l"(b), "r"(add));
}
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until all but so many of the groups that were ended are done.
template <int running>
__device__ inline void await_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(running) : "memory");
}
// The sums of products that are done, where the compiler may read them.
template <int count>
__device__ inline void take_sums(float (&sums)[count]) {
  DSE_UNROLL
  for (int i = 0; i < count; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// ---- clusters, and barriers of some of a block's warps
__device__ inline void meet_named(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void arrive_cluster() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }
__device__ inline void wait_cluster() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }
// The same place in another block's memory.
__device__ inline uint32_t address_in(uint32_t own, uint32_t block) {
  uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(own), "r"(block));
  return there;
}
__device__ inline void store_at(uint32_t address, const float (&v)[4]) {
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(v[0]), "f"(v[1]), "f"(v[2]),
               "f"(v[3])
               : "memory");
}

#elif !defined(__CUDACC__)

using emulator::address_in;
using emulator::address_of;
using emulator::arrive;
using emulator::arrive_cluster;
using emulator::await;
using emulator::copy_tile;
using emulator::make;
using emulator::meet_named;
using emulator::store_at;
using emulator::wait_cluster;
inline void show_barriers() {}
inline void fetch(const Tiles&) {}
inline uint64_t operand(uint32_t address) { return uint64_t(address) >> 4 | 64ull << 32; }
template <int count>
void multiply(float (&sums)[count], uint64_t a, uint64_t b, int add) {
  emulator::multiply_tiles(sums, 2 * count, a, b, add != 0);
}
inline void begin_products() {}
inline void end_products() { emulator::commit_tiles(); }
template <int running>
void await_products() {
  emulator::await_tiles(running);
}
template <int count>
void take_sums(float (&)[count]) {}

#endif

}  // namespace gpu
