// A tensor on its way to the host, which began when this was made: what is queued on the device after that is not
// waited for.
//
//   Arrival tokens(drawn);               // then the next step is queued
//   tokens.wait();                       // dense, in host memory
//
// From a device whose work is done at once it is there at once. One thread.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>

namespace c10 {
struct Event;
}

namespace dsengine {

class Arrival {
 public:
  Arrival() = default;
  explicit Arrival(const at::Tensor& from);
  const at::Tensor& wait();

 private:
  at::Tensor here_;
  std::shared_ptr<c10::Event> ready_;  // null: it is there
};

}  // namespace dsengine
