// A device for tests whose memory is not the host's: nothing but its own operations can touch it, so that code that
// reads a tensor of it on the host, or mixes it with the host's, fails here as it would on a graphics card. It computes
// with LibTorch's operations of the CPU on copies: the reference's results, up to the order of sums.
//
//   const Kernels reference_there(built_plugins(), far_device());       // no plugin has kernels for it
//
// It is LibTorch's "PrivateUse1". Backwards run on a thread of its own, as those of graphics cards do.
#pragma once
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/NativeFunctions.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <sys/mman.h>
#include <torch/library.h>

#include <map>
#include <mutex>
#include <new>

#include "device/device.h"

namespace dsengine::far {

// Blocks of whole pages that are closed to reading and writing while nobody has opened them.
class Memory : public c10::Allocator {
 public:
  static Memory& all() {
    static Memory& memory = *new Memory;
    return memory;
  }
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device where(c10::DeviceType::PrivateUse1, 0);
    if (bytes == 0) return {nullptr, where};
    const size_t size = (bytes + 4095) / 4096 * 4096;
    void* const data = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    const std::lock_guard lock(mutex_);
    blocks_[data] = {size, 0}, ++taken_;
    return {data, data, &Memory::free, where};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Memory::free; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    const Open both[] = {Open(to), Open(from)};
    std::memcpy(to, from, bytes);
  }

  int64_t taken() const { return taken_; }  // blocks so far

  // The block that an address lies in may be read and written until the end of the scope; of host memory nothing.
  class Open {
   public:
    explicit Open(const void* address) : address_(address) { all().change(address_, 1); }
    ~Open() { all().change(address_, -1); }
    Open(const Open&) = delete;
    Open& operator=(const Open&) = delete;

   private:
    const void* address_;
  };

 private:
  struct Block {
    size_t size;
    int opened;
  };
  static void free(void* data) {
    const std::lock_guard lock(all().mutex_);
    const auto block = all().blocks_.find(data);
    munmap(data, block->second.size);
    all().blocks_.erase(block);
  }
  void change(const void* address, int by) {
    const std::lock_guard lock(mutex_);
    auto after = blocks_.upper_bound(const_cast<void*>(address));
    if (after == blocks_.begin()) return;
    auto& [begin, block] = *std::prev(after);
    if (static_cast<const char*>(address) >= static_cast<char*>(begin) + block.size) return;
    const bool was = block.opened > 0;
    block.opened += by;
    if (was != (block.opened > 0)) mprotect(begin, block.size, was ? PROT_NONE : PROT_READ | PROT_WRITE);
  }

  std::mutex mutex_;
  std::map<void*, Block> blocks_;
  int64_t taken_ = 0;
};

inline at::Tensor empty(c10::IntArrayRef sizes, std::optional<c10::ScalarType> type, std::optional<c10::Layout>,
                        std::optional<c10::Device>, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  return at::detail::empty_generic(sizes, &Memory::all(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   type.value_or(at::kFloat), format);
}

inline at::Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides, std::optional<c10::ScalarType> type,
                                std::optional<c10::Layout>, std::optional<c10::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(
      sizes, strides, &Memory::all(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), type.value_or(at::kFloat));
}

// The tensor's memory as one of the host's, while it is open.
inline at::Tensor opened(const at::Tensor& t) {
  return at::from_blob(t.data_ptr(), t.sizes(), t.strides(), t.options().device(at::kCPU));
}

inline at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  if (to.numel() == 0) return to;
  const Memory::Open a(from.data_ptr()), b(to.data_ptr());
  opened(to).copy_(opened(from));
  return to;
}

inline at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  at::Tensor(to).resize_(from.sizes());
  return copy_from(from, to, false);
}

inline at::Scalar local_scalar(const at::Tensor& t) {
  const Memory::Open open(t.data_ptr());
  return opened(t).item();
}

inline const at::Tensor& resize(const at::Tensor& t, c10::IntArrayRef sizes, std::optional<c10::MemoryFormat>) {
  if (t.sizes() == sizes) return t;
  const at::Tensor fresh = at::empty(sizes, t.options());
  at::Tensor(t).set_(fresh.storage(), 0, sizes, fresh.strides());
  return t;
}

inline void on_the_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto check = [&](const at::Tensor& t) {  // a number may come from the host
    TORCH_CHECK(!t.defined() || t.dim() == 0 || t.device().type() == c10::DeviceType::PrivateUse1, op.schema().name(),
                ": tensors of two devices");
  };
  for (const auto& argument : torch::jit::last(*stack, op.schema().arguments().size())) {
    if (argument.isTensor()) check(argument.toTensor());
    if (argument.isTensorList())
      for (const at::Tensor& t : argument.toTensorVector()) check(t);
    if (argument.isOptionalTensorList())
      for (const std::optional<at::Tensor>& t : argument.toOptionalTensorVector())
        if (t) check(*t);
  }
  at::native::cpu_fallback(op, stack);
}

// One device with one stream, on which all has been done when a call returns.
struct Guard : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::PrivateUse1> {
  static c10::Device where() { return {c10::DeviceType::PrivateUse1, 0}; }
  static c10::Stream only() { return c10::Stream(c10::Stream::DEFAULT, where()); }
  c10::Device exchangeDevice(c10::Device) const override { return where(); }
  c10::Device getDevice() const override { return where(); }
  c10::Stream getStream(c10::Device) const noexcept override { return only(); }
  c10::Stream getNewStream(c10::Device, int) const override { return only(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return only(); }
  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};

struct Hooks : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
};

inline bool enter() {
  static const Guard& guard = *new Guard;  // LibTorch keeps it until the program ends
  static const c10::impl::DeviceGuardImplRegistrar registered(c10::DeviceType::PrivateUse1, &guard);
  static Hooks& hooks = *new Hooks;
  at::RegisterPrivateUse1HooksInterface(&hooks);
  c10::register_privateuse1_backend("far");
  c10::SetAllocator(c10::DeviceType::PrivateUse1, &Memory::all());
  static torch::Library own(torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  own.impl("empty.memory_format", TORCH_FN(empty));
  own.impl("empty_strided", TORCH_FN(empty_strided));
  own.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  own.impl("view", TORCH_FN(at::native::view));
  own.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  own.impl("unfold", TORCH_FN(at::native::unfold));
  own.impl("set_.source_Storage_storage_offset", TORCH_FN(at::native::set_storage_cpu_));
  own.impl("resize_", TORCH_FN(resize));
  own.impl("_copy_from", TORCH_FN(copy_from));
  own.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  own.impl("_local_scalar_dense", TORCH_FN(local_scalar));
  static torch::Library others(torch::Library::IMPL, "_", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  others.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_host>());
  return true;
}
inline const bool kThere = enter();  // before the first backward of the program

}  // namespace dsengine::far

namespace dsengine {

inline const Device& far_device() {
  static const Device device(at::Device(c10::DeviceType::PrivateUse1, 0));
  return device;
}

}  // namespace dsengine
