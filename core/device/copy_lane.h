// A device's second queue, for what goes on beside its work: weights on their way from the host's memory.
//
//   CopyLane lane(device);
//   lane.begin([&] { values.copy_(home); });     // once what was queued on the device before is done
//   …                                            // meanwhile `values` is not touched, nor `home` written
//   lane.join();                                 // what is queued on the device from here on comes after it
//
// Of a device whose work is done at once, this is too. The device outlives it. One thread.
#pragma once
#include <functional>
#include <memory>

#include "device/device.h"

namespace dsengine {

class CopyLane {
 public:
  explicit CopyLane(const Device& device);
  ~CopyLane();  // joined
  CopyLane(const CopyLane&) = delete;
  CopyLane& operator=(const CopyLane&) = delete;

  // The work is queued on the lane, which is the device's stream while it is called. Host memory that it copies from is
  // read later where a card reads it by itself (device/cuda.h), and stays as it is until then.
  void begin(const std::function<void()>& work);
  // Of what was begun since the last call; where that is nothing, nothing is done. A card that has failed says so at
  // the next thing that is asked of it.
  void join() noexcept;

 private:
  struct Queue;
  std::unique_ptr<Queue> queue_;  // null: work is done at once
};

}  // namespace dsengine
