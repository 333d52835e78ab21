// What the kernels of this folder are written in: a launch, elements and packs of them, and sums over a block.
//
//   template <class T>
//   __global__ void scale(const T* x, T* y, int64_t n, float by) {
//     after_previous();
//     const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
//     if (i < n) y[i] = element<T>(number(x[i]) * by);
//   }
//   launch(scale<bf16>, blocks_of(n, 256), 256, 0, stream, x, y, n, 2.0f);
//
// nvcc compiles the sources for cards. The tests compile the same sources for the host (tests/cuda/emulator.h), where
// every thread of a block is a coroutine: what a kernel computes is tried there, how fast it is is not.
#pragma once
#include <cstdint>

#include "dsengine/kernel.hpp"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define DSE_UNROLL _Pragma("unroll")
#else
#include "emulator.h"
#define DSE_UNROLL
#endif

namespace gpu {

#ifdef __CUDACC__
inline constexpr uint32_t kDevice = DSE_CUDA;
#else
inline constexpr uint32_t kDevice = DSE_CPU;
#endif

// A bfloat16: the upper half of a float32, rounded to the nearest even.
struct bf16 {
  uint16_t bits;
};

__host__ __device__ inline float number(float x) { return x; }
__device__ inline float number(bf16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }
template <class T>
__device__ T element(float x);
template <>
__device__ inline float element<float>(float x) {
  return x;
}
template <>
__device__ inline bf16 element<bf16>(float x) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {uint16_t(bits >> 16 | 0x40u)};  // not a number: stays none
  return {uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

template <class T>
inline constexpr uint32_t kDtype = sizeof(T) == 4 ? DSE_F32 : DSE_BF16;

// What a thread reads and writes at once: 16 bytes.
template <class T>
struct alignas(16) Pack {
  static constexpr int kSize = int(16 / sizeof(T));
  T at[kSize];
};

// The elements of a row from i on that are one pack's, as numbers; of those beyond its end nothing is read, and they
// are 0. whole: rows begin and end with whole packs.
template <class T>
struct Numbers {
  float at[Pack<T>::kSize];
};
template <class T>
__device__ inline Numbers<T> load(const T* row, int64_t i, int64_t width, bool whole) {
  Numbers<T> n;
  if (whole) {
    const Pack<T> pack = *reinterpret_cast<const Pack<T>*>(row + i);
    for (int j = 0; j < Pack<T>::kSize; ++j) n.at[j] = number(pack.at[j]);
  } else {
    for (int j = 0; j < Pack<T>::kSize; ++j) n.at[j] = i + j < width ? number(row[i + j]) : 0;
  }
  return n;
}
template <class T>
__device__ inline void store(const Numbers<T>& n, T* row, int64_t i, int64_t width, bool whole) {
  if (whole) {
    Pack<T> pack;
    for (int j = 0; j < Pack<T>::kSize; ++j) pack.at[j] = element<T>(n.at[j]);
    *reinterpret_cast<Pack<T>*>(row + i) = pack;
  } else {
    for (int j = 0; j < Pack<T>::kSize; ++j)
      if (i + j < width) row[i + j] = element<T>(n.at[j]);
  }
}
// Whether packs of such rows can be read and written whole; pointers may be null.
template <class T, class... Pointers>
bool whole_packs(int64_t width, const Pointers*... pointers) {
  return width % Pack<T>::kSize == 0 && ((reinterpret_cast<uintptr_t>(pointers) % sizeof(Pack<T>) == 0) && ...);
}
// f(i) for the packs of a row that this thread of the block has.
template <class T, class F>
__device__ inline void each_pack(int64_t width, const F& f) {
  for (int64_t i = int64_t(threadIdx.x) * Pack<T>::kSize; i < width; i += int64_t(blockDim.x) * Pack<T>::kSize) f(i);
}

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

// c [16, 8] += a [16, 16] b [16, 8] of bfloat16, by the tensor cores, and the transpose of an [8, 8]: each lane has the
// elements that the PTX manual gives it (mma.m16n8k16, movmatrix). Lane 4 g + t: of a rows g and g + 8, of b and c
// column g, or columns 2 t and 2 t + 1.
#ifdef __CUDACC__
__device__ inline void multiply_add(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                    uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ inline uint32_t transposed(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}
#else
using emulator::multiply_add;
using emulator::transposed;
#endif
__device__ inline uint32_t pair_of(float low, float high) {
  return uint32_t(element<bf16>(low).bits) | uint32_t(element<bf16>(high).bits) << 16;
}

// Each lane gets the sum, or the largest, of the 32.
template <class N>
__device__ inline N warp_sum(N x) {
  for (int o = kWarp / 2; o > 0; o /= 2) x += __shfl_xor_sync(kAllLanes, x, o);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int o = kWarp / 2; o > 0; o /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, o));
  return x;
}
// Each thread of the block gets the sum, in an order that its size alone decides. room: of the block's shared memory,
// one for each warp. Every thread calls it.
template <class N>
__device__ inline N block_sum(N x, N* room) {
  const int warps = int(blockDim.x) / kWarp;
  x = warp_sum(x);
  if (warps == 1) return x;
  __syncthreads();
  if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = x;
  __syncthreads();
  N all = 0;
  for (int w = 0; w < warps; ++w) all += room[w];
  return all;
}

inline int64_t blocks_of(int64_t count, int64_t size) { return (count + size - 1) / size; }
// Threads of a block that takes a row of `width` elements: whole warps, enough for a pack each, 256 at most.
template <class T>
int row_threads(int64_t width) {
  const int64_t warps = blocks_of(blocks_of(width, Pack<T>::kSize), kWarp);
  return kWarp * int(warps < 1 ? 1 : warps > 8 ? 8 : warps);
}

#ifdef __CUDACC__
inline void check_cuda(cudaError_t failed) {
  if (failed == cudaSuccess) return;
  cudaGetLastError();  // else the next who asks takes it for his
  throw dse::Failure(cudaGetErrorString(failed));
}
// Whether what is launched is recorded, and the kernel's code waits for the one before it (after_previous): it is
// compiled for 9.0 on. Other cards run what is compiled for 8.0.
inline bool begins_early(const void* kernel, cudaStream_t stream) {
  cudaStreamCaptureStatus status{};
  check_cuda(cudaStreamIsCapturing(stream, &status));
  if (status != cudaStreamCaptureStatusActive) return false;
  cudaFuncAttributes code{};
  check_cuda(cudaFuncGetAttributes(&code, kernel));
  return code.ptxVersion >= 90;
}
// Bytes of dynamic memory that a block can have on the card at hand, where it asks for them.
inline int most_shared() {
  int card = 0, bytes = 0;
  check_cuda(cudaGetDevice(&card));
  check_cuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, card));
  return bytes;
}
#endif

// In a recorded step a kernel begins while the one before it ends: programmatic dependent launch (CUDA C++ Programming
// Guide). Each thread of each kernel calls this, before it reads what others wrote and before it writes; before it
// weights may be read, for none changes in a recorded step. The kernel behind may begin then: so nobody is ahead of
// more than one.
__device__ inline void after_previous() {
#ifndef __CUDACC__
  emulator::after_previous();
#elif __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\ngriddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Of a thread that reads and writes nothing.
__device__ inline void leave_early() {
#ifndef __CUDACC__
  emulator::after_previous();
#endif
}

// The block's dynamic shared memory.
template <class T>
__device__ inline T* shared_memory() {
#ifdef __CUDACC__
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
#else
  return reinterpret_cast<T*>(emulator::here.shared);
#endif
}

// How a kernel is launched.
struct Launch {
  dim3 grid;  // blocks; nothing is launched for none
  int threads;
  size_t shared = 0;  // bytes of a block's dynamic memory
  void* stream = nullptr;
  unsigned cluster = 1;  // so many blocks along x are one
};
template <class... Parameters, class... Arguments>
void launch(const Launch& as, void (*kernel)(Parameters...), Arguments... arguments) {
  if (as.grid.x == 0 || as.grid.y == 0 || as.grid.z == 0) return;
#ifdef __CUDACC__
  constexpr size_t kWithoutAsking = 48 << 10;
  if (as.shared > kWithoutAsking)  // the same each time: what is recorded has it still when it runs
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most_shared()));
  cudaLaunchAttribute attributes[2]{};
  cudaLaunchConfig_t config{};
  config.gridDim = as.grid, config.blockDim = dim3(unsigned(as.threads)), config.dynamicSmemBytes = as.shared;
  config.stream = static_cast<cudaStream_t>(as.stream), config.attrs = attributes;
  if (as.cluster > 1) {
    cudaLaunchAttribute& cluster = attributes[config.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = as.cluster, cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  }
  if (begins_early(reinterpret_cast<const void*>(kernel), config.stream)) {
    cudaLaunchAttribute& early = attributes[config.numAttrs++];
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
  }
  check_cuda(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
#else
  emulator::run(as.grid, as.threads, as.shared, as.cluster, [&] { kernel(Parameters(arguments)...); });
#endif
}
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared, void* stream,
            Arguments... arguments) {
  launch(Launch{grid, threads, shared, stream}, kernel, arguments...);
}
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared, void* stream,
            Arguments... arguments) {
  if (blocks > INT32_MAX) throw dse::Failure("a call of too many rows for a card");
  launch(kernel, dim3(unsigned(blocks)), threads, shared, stream, arguments...);
}

// Unsupported where the card cannot run what is compiled here. One that is planned for can.
void check_card(const dse_operation& operation);

}  // namespace gpu
