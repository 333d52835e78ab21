// What a graphics card offers beside tensors. The interface of libdsengine_cuda, which is linked with LibTorch's CUDA
// libraries and opened when a card is (device/cuda.h); on a machine where the engine was built without CUDA there is
// none.
//
//   if (Card* card = opened_card()) { auto replay = card->record([&] { y.copy_(x); });  replay->run(); }
//
// Calls are the thread's that computes, but where said.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace dsengine {

// Work on fixed tensors that can be done again, with what they hold then.
class Replay {
 public:
  virtual ~Replay() = default;
  virtual void run() = 0;
};

class Card {
 public:
  virtual ~Card() = default;

  // A CUDA graph of the work, which has been done once when this returns, and makes its tensors where it made them
  // then: they are the graph's as long as it is there. The work waits for nothing of the device's, and reads nothing of
  // it.
  virtual std::unique_ptr<Replay> record(const std::function<void()>& work) = 0;

  // From here on called with each block that LibTorch's allocator gives out or takes back, by any thread; it takes no
  // memory of the card's. none_left: called where it has none to give, and throws what is to be told.
  virtual void watch_memory(std::function<void(bool given, size_t address, size_t bytes)> blocks,
                            std::function<void(size_t bytes)> none_left) = 0;
  // LibTorch's allocator takes no more than this of the card.
  virtual void limit_memory(int64_t bytes) = 0;
};

}  // namespace dsengine

// libdsengine_cuda's one function; the card is its own, until the process ends.
extern "C" dsengine::Card* dsengine_card(int index);
