// Kernels for the CPU, loaded by default: what LibTorch has no operation for, or none that gives a row the same bits in
// every batch. Products of matrices stay LibTorch's.
#include "kernels.h"

DSE_ITEM_NOTE("kernel", "cpu_activation", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_gated_activation", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_attention", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_attention_backward", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_cached_attention", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_embedding_weight_backward", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_rms_norm", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_rms_norm_backward", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_sum_of_squares", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_adamw", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_rope", "1.0", "");
DSE_ITEM_NOTE("kernel", "cpu_rope_backward", "1.0", "");

DSE_PLUGIN("cpu_kernels", "1.0", cpu::add_activations(items); cpu::add_attention(items); cpu::add_embedding(items);
           cpu::add_norms(items); cpu::add_optimizer(items); cpu::add_rope(items))
