#include "hopper.h"

namespace gpu {

#ifdef __CUDACC__

bool is_hopper(const dse_operation& operation) {
  int major = 0, minor = 0;
  const int card = int(operation.device_index);
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, card));
  check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, card));
  return major == 9 && minor == 0;
}

Tiles tiles_of(const bf16* first, int64_t rows, int64_t columns, int tile_rows) {
  // The driver's, which the plugin is not linked with.
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    constexpr unsigned kSince = 12000;
    check_cuda(
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kSince, cudaEnableDefault, &found));
    if (!function) throw dse::Failure("the driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  Tiles tiles{};
  const cuuint64_t sizes[] = {cuuint64_t(columns), cuuint64_t(rows)},
                   row_bytes[] = {cuuint64_t(columns) * sizeof(bf16)};
  const cuuint32_t tile[] = {kTileColumns, cuuint32_t(tile_rows)}, steps[] = {1, 1};
  const CUresult failed = encode(&tiles, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<bf16*>(first), sizes,
                                 row_bytes, tile, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (failed != CUDA_SUCCESS)
    throw dse::Failure("no tiles of a matrix of " + std::to_string(rows) + " by " + std::to_string(columns) +
                       ": the driver says " + std::to_string(int(failed)));
  return tiles;
}

#else

bool is_hopper(const dse_operation&) { return true; }

Tiles tiles_of(const bf16* first, int64_t rows, int64_t columns, int tile_rows) {
  if (!whole_packs<bf16>(columns, first) || tile_rows < 1 || tile_rows > 256 || rows < 1 || columns < 1)
    throw dse::Failure("no tiles of such a matrix");  // the driver would refuse it
  return {reinterpret_cast<const uint16_t*>(first), rows, columns, tile_rows};
}

#endif

}  // namespace gpu
