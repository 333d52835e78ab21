// NVIDIA's graphics cards. LibTorch's CUDA libraries are opened when a card is asked for, and not before: a program
// that computes on the host starts without them, on a machine without a driver too.
//
//   if (cuda_cards() > 0) open_cuda(0);                     // from here on at::Device(at::kCUDA, 0) has tensors
//
// What the card's runtime says of a failure stands in the error's text.
#pragma once
#include <cstdint>

namespace dsengine {

class Card;

// How many cards the driver has; 0 without one.
int cuda_cards();
// UserError: there is no card `index` (counted from 0), no driver, no LibTorch with CUDA, or the card is too old.
void open_cuda(int index);
// The last card that was opened; null: none, or the engine was built without CUDA.
Card* opened_card();
// Bytes that are free on an opened card.
int64_t cuda_free_memory(int index);

}  // namespace dsengine
