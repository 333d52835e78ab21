// Kernels for graphics cards, loaded by default.
#include "kernels.h"

// Opened for cards alone: the note says so. On the emulator they are the CPU's.
#ifdef __CUDACC__
#define DSE_NOTE(name) DSE_ITEM_NOTE("kernel", "cuda_" name, "1.0", "", "cuda")
#else
#define DSE_NOTE(name) DSE_ITEM_NOTE("kernel", "cuda_" name, "1.0", "")
#endif
#define DSE_NOTE_BOTH(name) \
  DSE_NOTE(name);           \
  DSE_NOTE(name "_bf16")

DSE_NOTE_BOTH("activation");
DSE_NOTE_BOTH("activation_backward");
DSE_NOTE_BOTH("gated_activation");
DSE_NOTE_BOTH("gated_activation_backward");
DSE_NOTE_BOTH("attention");
DSE_NOTE_BOTH("attention_backward");
DSE_NOTE_BOTH("cached_attention");
DSE_NOTE("cached_step_bf16");
DSE_NOTE("cached_attention_invariant_bf16");
DSE_NOTE("softcap");
DSE_NOTE("logit_sums");
DSE_NOTE("draw");
DSE_NOTE_BOTH("log_prob");
DSE_NOTE_BOTH("log_prob_invariant");
DSE_NOTE_BOTH("log_prob_backward");
DSE_NOTE_BOTH("linear");
DSE_NOTE_BOTH("linear_invariant");
DSE_NOTE("linear_activation_bf16");
DSE_NOTE("linear_gated_activation_bf16");
DSE_NOTE_BOTH("linear_backward");
DSE_NOTE_BOTH("linear_weight_backward");
DSE_NOTE_BOTH("rms_norm");
DSE_NOTE_BOTH("rms_norm_backward");
DSE_NOTE_BOTH("rms_norm_weight_backward");
DSE_NOTE_BOTH("layer_norm");
DSE_NOTE_BOTH("layer_norm_backward");
DSE_NOTE_BOTH("layer_norm_weight_backward");
DSE_NOTE("sum_of_squares");
DSE_NOTE("adamw");
DSE_NOTE_BOTH("rope");
DSE_NOTE_BOTH("rope_backward");
DSE_NOTE_BOTH("embedding");
DSE_NOTE_BOTH("embedding_weight_backward");
DSE_NOTE_BOTH("cache_write");
DSE_NOTE("stochastic_round");
DSE_NOTE("encode_rows");
DSE_NOTE_BOTH("decode_rows");

namespace gpu {

#ifdef __CUDACC__
void check_card(const dse_operation& operation) {
  if (operation.device_index == DSE_PLANNED) return;
  int major = 0, minor = 0;
  const int card = int(operation.device_index);
  const cudaError_t failed = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, card);
  if (failed != cudaSuccess) throw dse::Unsupported(std::string("this machine: ") + cudaGetErrorString(failed));
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, card);
  if (major < 8)
    throw dse::Unsupported("cards of compute capability " + std::to_string(major) + "." + std::to_string(minor));
}
#else
void check_card(const dse_operation&) {}
#endif

}  // namespace gpu

DSE_PLUGIN("cuda_kernels", "1.0", gpu::add_activations(items); gpu::add_attention(items); gpu::add_head(items);
           gpu::add_linear(items); gpu::add_norms(items); gpu::add_optimizer(items); gpu::add_rope(items);
           gpu::add_rounding(items); gpu::add_row_codes(items); gpu::add_rows(items))
