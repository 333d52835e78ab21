// LibTorch's flash attention (FlashAttention-2; Dao 2023) of ragged sequences on graphics cards, which a plugin may not
// link: in bfloat16, without a softcap, with heads of up to 256 that are multiples of 8.
//
//   if (flash::serves(kernels, dtype, head_dim, scores)) result = flash::attention(q, k, v, batch, scores);
//
// Shapes as the catalogue has them for attention, but for lse: that is as LibTorch keeps it, for its own backward.
#pragma once
#include "ops/kernels.h"
#include "ops/results.h"

namespace dsengine::flash {

bool serves(const Kernels& kernels, at::ScalarType dtype, int64_t head_dim, const AttentionScores& scores);

ops::Attended attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Batch& batch,
                        const AttentionScores& scores);
ops::AttentionGradients attention_backward(const at::Tensor& d_out, const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v, const ops::Attended& result, const Batch& batch,
                                           const AttentionScores& scores);

}  // namespace dsengine::flash
