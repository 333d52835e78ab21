// The catalogue: every operation that a model's forward, backward, generation and update are made of, with the slots of
// a call. Kernels replace them one by one (kernel.hpp); the engine's reference serves all of them, those that are of
// others one after the other.
//
//   static_assert(dse::slot_index(dse::entry(dse::Op::rms_norm).inputs, "w") == 1);
#pragma once
#include <cstdint>
#include <string_view>

#include "abi.h"

namespace [[gnu::visibility("hidden")]] dse {

enum class Op : uint32_t {
  linear = DSE_OP_LINEAR,
  linear_backward,
  linear_weight_backward,
  embedding,
  embedding_weight_backward,
  rms_norm,
  rms_norm_backward,
  rms_norm_weight_backward,
  layer_norm,
  layer_norm_backward,
  layer_norm_weight_backward,
  activation,
  activation_backward,
  gated_activation,
  gated_activation_backward,
  rope,
  rope_backward,
  attention,
  attention_backward,
  cache_write,
  cached_attention,
  log_prob,
  log_prob_backward,
  sum_of_squares,
  adamw,
  logit_sums,
  softcap,
  draw,
  pack_weights,
  packed_linear,
  stochastic_round,
  encode_rows,
  decode_rows,
  linear_activation,
  linear_gated_activation,
  cached_step,
};
static_assert(uint32_t(Op::cached_step) == DSE_OP_CACHED_STEP);

// An entry: slots in the order in which a call has them, separated by blanks. `x?` may be empty; `x+` is added to what
// is there; `x=` is changed in place; of `x*` the last dimension alone is dense, else all are. `x:i` is int64; `x:f` is
// float32, and float64 where the operation's dtype is; `x:w` has the operation's dtype or is float32, as the call's
// array says. The others have the operation's dtype, unless said.
struct OpEntry {
  Op op;
  const char* name;
  const char *inputs, *outputs;
  const char *reals, *integers;  // numbers that a call brings; all else is fixed when the operation is bound
};

// Legend: N rows (tokens), I and O widths (in, out), V vocabulary, Hq and Hk query and key-value heads, D head_dim, B
// sequences. `X_backward` gives the gradient of X's input, `X_weight_backward` adds those of its parameters. Additions,
// scalings, copies and selections are LibTorch's on every device, and are here only as part of something larger.
//
// Kernels of one library that claim row invariance come to the same bits where operations come to the same numbers:
// attention and cached_attention; log_prob, and linear, softcap and logit_sums one after the other. Then the
// log-probabilities of a rollout are those of a training forward, and the engine does not compute them twice.
inline constexpr OpEntry kCatalogue[] = {
    // y = x wᵀ + b + residual. x [N, I], w [O, I], b [O], residual and y [N, O].
    {Op::linear, "linear", "x w b? residual?", "y:w", "", ""},
    // dx = dy w. dy [N, O] -> dx [N, I].
    {Op::linear_backward, "linear.backward", "dy w", "dx", "", ""},
    // dw [O, I] += dyᵀ x, db [O] += sum of dy's rows.
    {Op::linear_weight_backward, "linear.weight_backward", "dy x", "dw+?:w db+?:w", "", ""},
    // y = table[ids]. table [I, O], ids [N] -> y [N, O].
    {Op::embedding, "embedding", "table ids:i", "y", "", ""},
    // dtable[ids] += dy, in the order of the rows.
    {Op::embedding_weight_backward, "embedding.weight_backward", "dy ids:i", "dtable+:w", "", ""},
    // y = x rstd (w + shift), rstd = 1 / sqrt(mean of x² + eps). x, y [N, I], w [I], rstd [N].
    {Op::rms_norm, "rms_norm", "x w", "y rstd:f", "", ""},
    {Op::rms_norm_backward, "rms_norm.backward", "dy x w rstd:f", "dx", "", ""},
    // dw [I] += sum over rows of dy x rstd.
    {Op::rms_norm_weight_backward, "rms_norm.weight_backward", "dy x rstd:f", "dw+:w", "", ""},
    // y = (x - mean) rstd w + b. Without w and b: 1 and 0. mean, rstd [N].
    {Op::layer_norm, "layer_norm", "x w? b?", "y mean:f rstd:f", "", ""},
    {Op::layer_norm_backward, "layer_norm.backward", "dy x w? mean:f rstd:f", "dx", "", ""},
    {Op::layer_norm_weight_backward, "layer_norm.weight_backward", "dy x mean:f rstd:f", "dw+?:w db+?:w", "", ""},
    // x, y [N, I].
    {Op::activation, "activation", "x", "y", "", ""},
    {Op::activation_backward, "activation.backward", "dy x", "dx", "", ""},
    // y = activation(gate) up. x = gate | up [N, I], y [N, O], I = 2 O.
    {Op::gated_activation, "gated_activation", "x", "y", "", ""},
    {Op::gated_activation_backward, "gated_activation.backward", "dy x", "dx", "", ""},
    // Turns the first `turned` heads of x [N, heads, D], by +angle and, backward, by -angle; copies the others.
    // lengths [N]: of each token's sequence.
    {Op::rope, "rope", "x positions:i lengths:i", "y", "", "turned"},
    {Op::rope_backward, "rope.backward", "dy positions:i lengths:i", "dx", "", "turned"},
    // Causal, over ragged sequences: b has the tokens offsets[b] … offsets[b + 1] - 1 (offsets [B + 1]).
    // q, out [N, Hq, D], k, v [N, Hk, D]; lse [N, Hq]: log-sum-exp of the scores.
    {Op::attention, "attention", "q* k* v* offsets:i", "out lse?:f", "", "longest"},
    {Op::attention_backward, "attention.backward", "d_out q* k* v* out lse:f offsets:i", "dq dk dv", "", "longest"},
    // The cache is blocks of S tokens: keys and values [P, S, Hk, D]. Key j of sequence b stands in block
    // blocks[b, j / S] (blocks [B, M]) at j % S. k, v [N, Hk, D] go to rows [N] of [P S, Hk, D].
    {Op::cache_write, "cache_write", "k* v* rows:i", "keys= values=", "", ""},
    // Each sequence's new tokens are the last of its key_counts [B] keys.
    {Op::cached_attention, "cached_attention", "q* keys values blocks:i offsets:i key_counts:i", "out", "", "longest"},
    // z = softcap(x headᵀ) / temperature, head [V, I], targets [N]: lse [N] = log of the sum of exp(z),
    // target_logit [N] = z[target], mean_logit [N] = mean of z under softmax(z). Those of parts of the vocabulary can
    // be merged.
    {Op::log_prob, "log_prob", "x head targets:i", "lse:f target_logit:f mean_logit?:f", "temperature", ""},
    // For d_logp and d_entropy [N], of logp = target_logit - lse and entropy = lse - mean_logit.
    {Op::log_prob_backward, "log_prob.backward", "d_logp:f d_entropy?:f x head targets:i lse:f entropy?:f",
     "dx dhead+?:w", "temperature", ""},
    // sum [1] float64 = of x² of x [N], in an order that depends on N alone.
    {Op::sum_of_squares, "sum_of_squares", "x", "sum", "", ""},
    // Per element: g = gradient clip; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g²;
    // w = w keep - step_size m / (sqrt(v) / root2 + epsilon), where keep is 1 from element `decayed` on.
    // All [N], m and v float32.
    {Op::adamw, "adamw", "gradient", "w= m= v=", "clip beta1 beta2 step_size keep root2 epsilon", "decayed"},
    // What log_prob makes of logits [N, V], softcapped where there is one: z = logits / temperature of each row.
    {Op::logit_sums, "logit_sums", "logits temperatures targets:i", "lse target_logit mean_logit?", "", ""},
    // logits [N, V] become softcap tanh(logits / softcap).
    {Op::softcap, "softcap", "", "logits=", "", ""},
    // The next token of each row of logits [N, V], softcapped where there is one: the first at which the sum of
    // softmax(z), z = logits / temperature, ids ascending, passes draws [N] float64 in [0, 1); of a draw below 0 the
    // likeliest, the lowest id among equals. lse and target_logit [N] as logit_sums has them of those tokens.
    {Op::draw, "draw", "logits temperatures draws", "tokens:i lse target_logit", "", ""},
    // w [O, I] as a rollout reads it, narrower, in panels of 32 outputs; outputs beyond O are 0.
    // bf16: [ceil(O / 32), I, 32], rounded to the nearest even. int8: [ceil(O / 32), ceil(I / 32)] of blocks: int8
    // [32 inputs, 32 outputs], inputs beyond I 0, then float16 [32 outputs]: a scale, by which the bytes are multiplied
    // in float32, the largest of the block being 127.
    {Op::pack_weights, "pack_weights", "w", "packed", "", ""},
    // y = x wᵀ + b + residual of packed weights, unpacked to float32: the bits that linear gives of those.
    {Op::packed_linear, "packed_linear", "x packed b? residual?", "y", "", ""},
    // y = x [N] rounded to bfloat16, up or down with the probability that keeps the mean: to the upper half of x's bits
    // + draw. Element n is of number i = first + n; its draw is the (i % 8)th 16 bits of Philox4x32-10 (Salmon et al.
    // 2011) of the counter (2 [i / 8] + stream, high), each 64 bits, by the key.
    {Op::stochastic_round, "stochastic_round", "x:f", "y", "", "key high first stream"},
    // Blocks of `block` elements of rows x [N, width]: scales [N, blocks] = the largest magnitudes; codes [N, width]
    // uint8
    // = how many of the 255 middles between one of values [256], ascending, and the next are below x / (scale, or 1).
    {Op::encode_rows, "encode_rows", "x values:f", "codes scales:f", "", "width block"},
    // y [N, width] = values[code] scale. Of 256 values codes are [N, width]; of 16 two lie in a byte, the first in the
    // high half: [N, ceil(width / 2)].
    {Op::decode_rows, "decode_rows", "codes scales:f values:f", "y", "", "width block"},
    // What generation does in one where a kernel does: else the operations above, one after the other. The reference
    // has
    // them so alone. They are called for prompts' rows too, but cached_step.
    // y [N, O] = activation(x wᵀ + b). x [N, I], w [O, I], b [O].
    {Op::linear_activation, "linear_activation", "x w b?", "y", "", ""},
    // y [N, O] = gated_activation(x wᵀ + b). w = gate | up [2 O, I], b [2 O].
    {Op::linear_gated_activation, "linear_gated_activation", "x w b?", "y", "", ""},
    // A new token of each sequence, N = B: rope of its q and k, where there is one; cache_write; cached_attention. qkv
    // [N, Hq + 2 Hk, D]: the heads of q, of k, of v. key_counts, and lengths, have the new token; longest may be more.
    // Blocks may be shared: rows alone are written. Sequences that are nobody's may have one row in common.
    {Op::cached_step, "cached_step", "qkv positions:i lengths:i rows:i blocks:i offsets:i key_counts:i",
     "out keys= values=", "", "longest"},
};

constexpr const OpEntry& entry(Op op) { return kCatalogue[uint32_t(op) - 1]; }

// The place of a slot in a list of the catalogue, and how many there are.
constexpr uint32_t slot_count(std::string_view slots) {
  uint32_t count = slots.empty() ? 0 : 1;
  for (const char c : slots) count += c == ' ';
  return count;
}
constexpr std::string_view slot(std::string_view slots, uint32_t index) {
  while (index-- > 0) slots.remove_prefix(slots.find(' ') + 1);
  return slots.substr(0, slots.find(' '));
}
constexpr std::string_view slot_name(std::string_view slot) { return slot.substr(0, slot.find_first_of("?+=:*")); }
consteval uint32_t slot_index(std::string_view slots, std::string_view name) {
  for (uint32_t i = 0; i < slot_count(slots); ++i)
    if (slot_name(slot(slots, i)) == name) return i;
  throw "the operation has no such slot";
}
consteval bool catalogue_is_in_order() {
  uint32_t next = 1;
  for (const auto& e : kCatalogue)
    if (uint32_t(e.op) != next++) return false;
  return next == uint32_t(DSE_OP_CACHED_STEP) + 1;
}
static_assert(catalogue_is_in_order());

}  // namespace dse
