// Kernels for the CPU, loaded by default.
#include <cstdlib>
#include <string_view>

#include "kernels.h"
#include "targets.h"
// after targets.h
#include <hwy/targets.h>

DSE_ITEM_NOTE("kernel", "cpu_activation", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_activation_backward", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_gated_activation", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_gated_activation_backward", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_attention", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_attention_backward", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_cached_attention", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_cache_write", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_draw", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_pack_weights", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_packed_linear", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_embedding_weight_backward", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_softcap", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_logit_sums", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_log_prob", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_log_prob_backward", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_linear", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_linear_backward", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_linear_weight_backward", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_rms_norm", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_rms_norm_backward", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_rms_norm_weight_backward", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_layer_norm", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_layer_norm_backward", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_layer_norm_weight_backward", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_sum_of_squares", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_adamw", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_rope", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_rope_backward", "1.0", "");

namespace cpu {
namespace {

// The instruction sets that may be used, and from then on are. SupportedTargets as it looks at the processor makes all
// of it the choice of HWY_DYNAMIC_DISPATCH, what is disabled too: so it is asked once, and the choice made after it.
int64_t usable_targets() {
  static const int64_t targets = [] {
    const char* most = std::getenv("DSENGINE_INSTRUCTION_SET");
    if (most && most == std::string_view("avx2")) hwy::DisableTargets(HWY_AVX3 | HWY_AVX3_DL);
    const int64_t all = hwy::SupportedTargets();
    hwy::GetChosenTarget().Update(all);
    return all;
  }();
  return targets;
}

}  // namespace

void check_instruction_set() {
  if (!(usable_targets() & (HWY_AVX2 | HWY_AVX3))) throw dse::Unsupported("processors without AVX2 and FMA");
}

}  // namespace cpu

DSE_PLUGIN("cpu_kernels", "1.0", cpu::usable_targets(); cpu::add_activations(items); cpu::add_attention(items);
           cpu::add_cache_write(items); cpu::add_draw(items); cpu::add_embedding(items); cpu::add_head(items);
           cpu::add_linear(items); cpu::add_norms(items); cpu::add_optimizer(items); cpu::add_packed(items);
           cpu::add_rope(items))
