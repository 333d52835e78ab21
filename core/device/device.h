// Where tensors live and work runs. The session owns it, everyone else borrows it. A tensor is made by a device, or
// like another tensor.
//
//   const Device& device = model.device();
//   at::Tensor x = device.empty({rows, width}, at::kFloat);
//   at::Tensor offsets = device.upload(std::span(host_offsets));     // a batch going in
//
//   at::Tensor tokens = on_host(drawn);                              // what comes out
//
// Host and device shall meet in three places: a batch going in (`upload`), columns coming out (rl/forward.h), and
// checkpoints; what else reads a tensor on the host is listed in docs/architecture.md. Not copyable; outlives the
// tensors' owners. Any thread.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/TensorOptions.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace dsengine {

class Replay;

class Device {
 public:
  explicit Device(at::Device where) : where_(where) {}
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  // The host's own memory: what is staged, drawn or read there before it goes anywhere.
  static const Device& host();
  // LibTorch's meta device: its tensors have shapes and no values, so that a step of training can be gone through for
  // the memory that it would take (rl/rehearsal.h).
  static const Device& meta();

  at::Device where() const { return where_; }
  bool has_values() const { return !where_.is_meta(); }
  // Whether its memory is another than the host's.
  bool is_apart() const { return !where_.is_cpu() && !where_.is_meta(); }
  // Bytes of memory of its own that are free; none where that is the host's, or nobody can say.
  std::optional<int64_t> free_memory() const;
  // Does the work, which is on fixed tensors of the device, and gives what does it again (device/card.h).
  std::unique_ptr<Replay> record(const std::function<void()>& work) const;
  // The stream that its work is queued on, as its libraries know it (cudaStream_t); null: work is done at once.
  void* stream() const;
  at::TensorOptions options(at::ScalarType type) const { return at::TensorOptions().device(where_).dtype(type); }
  // The values are whatever memory holds.
  at::Tensor empty(at::IntArrayRef sizes, at::ScalarType type) const;
  // A copy of numbers in host memory, [n].
  at::Tensor upload(std::span<const int64_t> values) const;
  at::Tensor upload(std::span<const float> values) const;
  at::Tensor upload(std::span<const double> values) const;

 private:
  at::Device where_;
};

// "cpu"; "cuda", the first graphics card; "cuda:1", the one of that number, counted from 0; "auto": the first card
// where it can be used, else the host. UserError: what is missing.
Device open_device(const std::string& name);

// The tensor dense in host memory; of one without values zeros.
at::Tensor on_host(const at::Tensor& tensor);

// f(values): the tensor dense in host memory, itself where it is so already; what f leaves in it becomes the tensor's.
template <class F>
void edit_on_host(const at::Tensor& tensor, const F& f) {
  const at::Tensor here = on_host(tensor);
  f(here);
  if (!here.is_alias_of(tensor)) at::Tensor(tensor).copy_(here);
}

}  // namespace dsengine
