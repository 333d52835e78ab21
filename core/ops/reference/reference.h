// The operations of the catalogue as plain LibTorch, on any device, in any floating type: the truth that kernels are
// compared with, and enough to run without any. Shapes and slots: sdk/include/dsengine/catalogue.hpp.
//
//   at::Tensor y = reference::linear(x, w, b, {});
//
// `…_backward` of parameters add to what is there. What is composed of other operations is in core/ops alone.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>
#include <tuple>

#include "ops/results.h"
#include "ops/row_codes.h"

namespace dsengine::reference {

// With rows filled up to a multiple of 8 for BLAS: sgemm takes other kernels, and other roundings, for the rows beyond,
// so that a row's bits would depend on its neighbours. Holds for widths that are multiples of 4, which models have;
// seen to fail at 250 inputs and 8 outputs, there to rounding only.
at::Tensor linear(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b, const at::Tensor& residual);
at::Tensor linear_backward(const at::Tensor& dy, const at::Tensor& w);
void linear_weight_backward(const at::Tensor& dy, const at::Tensor& x, at::Tensor dw, at::Tensor db);

void embedding_weight_backward(const at::Tensor& dy, const at::Tensor& ids, at::Tensor dtable);

ops::RmsNormed rms_norm(const at::Tensor& x, const at::Tensor& w, double eps, double shift);
at::Tensor rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w, const at::Tensor& rstd,
                             double shift);
void rms_norm_weight_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& rstd, at::Tensor dw);

ops::LayerNormed layer_norm(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b, double eps);
at::Tensor layer_norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w, const at::Tensor& mean,
                               const at::Tensor& rstd);
void layer_norm_weight_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& mean,
                                const at::Tensor& rstd, at::Tensor dw, at::Tensor db);

at::Tensor activation(const at::Tensor& x, Activation activation);
at::Tensor activation_backward(const at::Tensor& dy, const at::Tensor& x, Activation activation);

// sign 1: forward, -1: backward. frequencies and long_frequencies [pairs] float32 on x's device; the second may be
// undefined.
at::Tensor rope(const at::Tensor& x, int64_t turned, const at::Tensor& positions, const at::Tensor& lengths,
                const at::Tensor& frequencies, const at::Tensor& long_frequencies, const RopeSpec& rope, int sign);

ops::Attended attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Batch& batch,
                        const AttentionScores& scores);
ops::AttentionGradients attention_backward(const at::Tensor& d_out, const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v, const ops::Attended& result, const Batch& batch,
                                           const AttentionScores& scores);
at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                            const ops::CachePlaces& places, const Batch& batch, const AttentionScores& scores);

// Of logits z [N, V] that are softcapped and divided by the temperature.
ops::LogitSums logit_sums(const at::Tensor& z, const at::Tensor& targets, bool want_mean);

// Of such logits: tokens [N] for draws [N] float64.
at::Tensor draw(const at::Tensor& z, const at::Tensor& draws);

// The catalogue's layouts: how many bytes, what they hold. unpacked: [out, in] float32.
int64_t packed_bytes(int64_t in, int64_t out, Packing packing);
at::Tensor pack_weights(const at::Tensor& w, Packing packing);
at::Tensor unpacked_weights(const at::Tensor& packed, int64_t in, int64_t out, Packing packing);

double sum_of_squares(const at::Tensor& x);
std::span<const float> values_of(ops::RowCode code);
void encode_rows(ops::RowCode code, const at::Tensor& x, const at::Tensor& codes, const at::Tensor& scales);
void decode_rows(ops::RowCode code, const at::Tensor& codes, const at::Tensor& scales, const at::Tensor& y);
void stochastic_round(const at::Tensor& x, at::Tensor y, int64_t first, const ops::RoundingDraws& draws);
void adamw(const at::Tensor& gradient, at::Tensor w, at::Tensor m, at::Tensor v, const ops::AdamWNumbers& numbers);

}  // namespace dsengine::reference
