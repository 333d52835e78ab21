#include "memory/arena.h"

#include <cstdint>

#include "base/check.h"

namespace dsengine {

Arena::Arena(const Device& device, at::ScalarType type, const std::vector<int64_t>& numels)
    : step_(kAlignment / int64_t(c10::elementSize(type))) {
  int64_t total = 0;
  for (const auto numel : numels) total += room_for(numel);
  if (total == 0) total = step_;
  // LibTorch aligns to less: what is missing lies in front.
  const at::Tensor whole = device.empty({total + step_}, type);
  const auto beyond = int64_t(reinterpret_cast<uintptr_t>(whole.data_ptr()) % kAlignment);
  const int64_t first = beyond == 0 ? 0 : (kAlignment - beyond) / int64_t(c10::elementSize(type));
  buffer_ = whole.narrow(0, first, total);
}

at::Tensor Arena::take(int64_t numel) {
  DSE_CHECK(numel >= 0 && next_ + room_for(numel) <= buffer_.numel(), "{} elements of an arena with {} of {} left",
            numel, buffer_.numel() - next_, buffer_.numel());
  const int64_t begin = next_;
  next_ += room_for(numel);
  return buffer_.narrow(0, begin, numel);
}

}  // namespace dsengine
