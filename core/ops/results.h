// What operations take and make beside tensors of their own: for ops.h and the reference.
#pragma once
#include <ATen/core/Tensor.h>

#include "base/philox.h"
#include "ops/batch.h"
#include "ops/operation.h"

namespace dsengine::ops {

struct RmsNormed {
  at::Tensor y, rstd;
};
struct LayerNormed {
  at::Tensor y, mean, rstd;
};

struct Attended {
  at::Tensor out, lse;  // lse: undefined unless asked for
};
struct AttentionGradients {
  at::Tensor dq, dk, dv;
};

// Where a batch's keys stand in a cache of blocks of `block_size` tokens: on the device, int64.
struct CachePlaces {
  int64_t block_size = 0;
  at::Tensor blocks;      // [B, M]: of each sequence, in order
  at::Tensor key_counts;  // [B]: keys up to the end of the batch
  at::Tensor rows;        // [N]: of each new token, block * block_size + place in it
};

// Of logits z / temperature: lse = log of the sum of exp, the target's, and their mean under softmax.
struct LogitSums {
  at::Tensor lse, target_logit, mean_logit;  // [N]; mean_logit: undefined unless asked for
};

struct Drawn {
  at::Tensor tokens;  // [N] int64
  LogitSums sums;     // of them
};

// The draws of one of two streams, counted by element.
struct RoundingDraws {
  Philox draws;
  uint64_t stream = 0;  // 0 or 1
};

struct AdamWNumbers {
  double clip, beta1, beta2, step_size, keep, root2, epsilon;
  int64_t decayed;
};

}  // namespace dsengine::ops
