#include "ops/flash_attention.h"

#include <ATen/ATen.h>

#include <optional>

namespace dsengine::flash {

using at::Tensor;

namespace {

// Keys before a query that it sees; none: all.
std::optional<int64_t> seen_before(const AttentionScores& scores) {
  return scores.window > 0 ? std::optional(scores.window - 1) : std::nullopt;
}
std::optional<int64_t> seen_after(const AttentionScores& scores) {
  return scores.window > 0 ? std::optional<int64_t>(0) : std::nullopt;
}

}  // namespace

bool serves(const Kernels& kernels, at::ScalarType dtype, int64_t head_dim, const AttentionScores& scores) {
  return kernels.device().where().is_cuda() && !kernels.is_exact() && dtype == at::kBFloat16 && scores.softcap == 0 &&
         head_dim % 8 == 0 && head_dim <= 256;
}

ops::Attended attention(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch,
                        const AttentionScores& scores) {
  if (q.size(0) == 0) return {at::empty_like(q), at::empty({0}, q.options().dtype(at::kFloat))};
  const Tensor starts = batch.starts.to(at::kInt);
  const auto result = at::_flash_attention_forward(q, k, v, starts, starts, batch.longest, batch.longest, 0.0, true,
                                                   false, scores.scale, seen_before(scores), seen_after(scores));
  return {std::get<0>(result), std::get<1>(result)};
}

ops::AttentionGradients attention_backward(const Tensor& d_out, const Tensor& q, const Tensor& k, const Tensor& v,
                                           const ops::Attended& result, const Batch& batch,
                                           const AttentionScores& scores) {
  if (q.size(0) == 0) return {at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  const Tensor starts = batch.starts.to(at::kInt);
  const Tensor none = at::zeros({2}, batch.starts.options());  // of dropout's draws
  auto [dq, dk, dv] = at::_flash_attention_backward(d_out, q, k, v, result.out, result.lse, starts, starts,
                                                    batch.longest, batch.longest, 0.0, true, none, none, scores.scale,
                                                    seen_before(scores), seen_after(scores));
  return {dq.contiguous(), dk.contiguous(), dv.contiguous()};
}

}  // namespace dsengine::flash
