// An operation of the catalogue (sdk/include/dsengine/catalogue.hpp) as it is bound: all that is fixed but the number
// of rows.
//
//   const Operation norm{.op = dse::Op::rms_norm, .dtype = at::kFloat, .in = width, .eps = 1e-5};
//   const BoundKernel kernel = kernels.bind(norm);
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <vector>

#include "dsengine/catalogue.hpp"

namespace dsengine {

enum class Activation { silu = DSE_SILU, relu = DSE_RELU, gelu = DSE_GELU, gelu_tanh = DSE_GELU_TANH };

// Rotary positions: the frequencies are fixed in float64 at declaration and used in float32.
struct RopeSpec {
  std::vector<float> frequencies;       // empty: no rotation; dimension pairs (i, i + size)
  std::vector<float> long_frequencies;  // instead of them in sequences longer than long_after; empty: never
  int64_t long_after = 0;
  float amplitude = 1;  // of cosine and sine
  bool operator==(const RopeSpec&) const = default;
};

// How a rollout reads weights; the layouts: catalogue.hpp.
enum class Packing : uint32_t { none = 0, bf16 = DSE_PACKED_BF16, int8 = DSE_PACKED_INT8 };

// What becomes of q·k before the softmax.
struct AttentionScores {
  double scale = 1;
  int64_t window = 0;  // a token sees itself and the window - 1 before it; 0: all
  double softcap = 0;  // softcap * tanh(score / softcap); 0: none
  bool operator==(const AttentionScores&) const = default;
};

// Fields that the op does not read keep their defaults. They are described at dse_operation (abi.h).
struct Operation {
  dse::Op op;
  at::ScalarType dtype = at::kFloat;
  int64_t in = 0, out = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  Activation activation = Activation::silu;
  double eps = 0, shift = 0;
  AttentionScores scores{};
  double softcap = 0;  // of logits
  RopeSpec rope{};
  Packing packing = Packing::none;
  bool operator==(const Operation&) const = default;
  Operation as(dse::Op other) const {
    Operation copy = *this;
    copy.op = other;
    return copy;
  }
};

}  // namespace dsengine
