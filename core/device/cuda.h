// NVIDIA's graphics cards. LibTorch's CUDA libraries are opened when a card is asked for, and not before: a program
// that computes on the host starts without them, on a machine without a driver too.
//
//   if (cuda_cards() > 0) open_cuda(0);                     // from here on at::Device(at::kCUDA, 0) has tensors
//
// What the card's runtime says of a failure stands in the error's text.
#pragma once
#include <cstddef>
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
// From here on opened cards read and write this host memory by themselves ("pinned"): copies of it are queued, and no
// page of it is given to the system. False where it cannot be, or no card is open: it stays what it was. Any thread.
bool pin_host_memory(void* begin, size_t bytes);
// Of memory that is pinned, before it is freed: waits for what cards do with it.
void unpin_host_memory(void* begin);

}  // namespace dsengine
