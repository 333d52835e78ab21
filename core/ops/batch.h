// Ragged sequences, end to end, without padding: what a forward reads. Built once for each forward, with everything
// that the host asks of it, so that no forward waits for a device to answer.
//
//   const Batch batch = pack(device, {prompt, other});
//   at::Tensor h_NH = model.hidden(batch);
//   const Batch next = pack(device, {one_token}, {past});     // after what a cache already holds
//
// Legend: B sequences, N new tokens of all of them.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "device/device.h"

namespace dsengine {

struct Batch {
  // On the host.
  std::vector<int64_t> offsets;  // [B + 1]: sequence b has the new tokens [offsets[b], offsets[b + 1])
  std::vector<int64_t> past;     // [B]: tokens of each that came before
  int64_t longest = 0;           // tokens of the longest, those before included
  int64_t least_id = 0, largest_id = 0;

  // On the device, int64.
  at::Tensor tokens;     // [N]
  at::Tensor positions;  // [N], from 0 in each sequence
  at::Tensor lengths;    // [N], of each token's sequence, up to the end of this batch
  at::Tensor starts;     // [B + 1]: offsets

  int64_t sequences() const { return int64_t(past.size()); }
};

// past: tokens of each sequence that came before; empty: none.
Batch pack(const Device& device, const std::vector<std::span<const int32_t>>& sequences,
           std::vector<int64_t> past = {});

}  // namespace dsengine
