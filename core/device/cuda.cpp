#include "device/cuda.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <filesystem>

#include "base/check.h"
#include "base/own_folder.h"
#include "device/card.h"

namespace dsengine {

namespace {

constexpr int kMajor = 75, kMinor = 76;  // cudaDevAttrComputeCapability…
constexpr int kOldest = 80;

// The runtime that LibTorch's libraries are linked with; they bring it along.
template <class F>
F* runtime(const char* name) {
  static void* const library = dlopen("libcudart.so.13", RTLD_LAZY | RTLD_LOCAL);
  return library ? reinterpret_cast<F*>(dlsym(library, name)) : nullptr;
}

// Of a call that failed; "" where it did not.
std::string failure(int status) {
  if (status == 0) return "";
  auto* const text_of = runtime<const char*(int)>("cudaGetErrorString");
  const char* const text = text_of ? text_of(status) : nullptr;
  return text ? text : fmt::format("CUDA error {}", status);
}

struct Count {
  int cards = 0;
  std::string failed;
};

Count counted() {
  // Without a driver the runtime says that it is too old.
  if (void* const driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL); !driver)
    return {.failed = "there is no NVIDIA driver (libcuda.so.1)"};
  auto* const count = runtime<int(int*)>("cudaGetDeviceCount");
  if (!count) return {.failed = "there is no CUDA runtime (libcudart.so.13)"};
  Count found;
  found.failed = failure(count(&found.cards));
  if (!found.failed.empty()) found.cards = 0;
  return found;
}

Card* opened = nullptr;

}  // namespace

Card* opened_card() { return opened; }

int cuda_cards() { return counted().cards; }

void open_cuda(int index) {
  const Count found = counted();
  DSE_CHECK_USER(found.failed.empty() && found.cards > 0, "device 'cuda': no graphics card can be used: {}",
                 found.failed.empty() ? "the driver has none" : found.failed);
  DSE_CHECK_USER(index < found.cards, "device 'cuda:{}': this machine has {} card{}, counted from 0", index,
                 found.cards, found.cards == 1 ? "" : "s");
  auto* const attribute = runtime<int(int*, int, int)>("cudaDeviceGetAttribute");
  int major = 0, minor = 0;
  if (attribute && attribute(&major, kMajor, index) == 0 && attribute(&minor, kMinor, index) == 0)
    DSE_CHECK_USER(10 * major + minor >= kOldest,
                   "device 'cuda:{}': the card has compute capability {}.{}, {}.{} is "
                   "the oldest that is served",
                   index, major, minor, kOldest / 10, kOldest % 10);
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);  // else cuBLAS may sum in another order from call to call
  // Their operations are LibTorch's own, for which they must be found by all.
  DSE_CHECK_USER(dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL),
                 "device 'cuda': LibTorch's CUDA libraries cannot "
                 "be opened: {}",
                 dlerror());
  DSE_CHECK_USER(at::detail::getCUDAHooks().hasCUDA(), "device 'cuda': LibTorch finds no card that it can use");
  at::detail::getCUDAHooks().init();
  c10::impl::VirtualGuardImpl(c10::kCUDA).setDevice(c10::Device(c10::kCUDA, c10::DeviceIndex(index)));
  const auto file = plugins_beside_code().parent_path() / "libdsengine_cuda.so";
  if (std::error_code error; !std::filesystem::exists(file, error)) {
    spdlog::warn(
        "device event=no_card_library file={} note=\"a card's memory is not counted, and steps are not recorded\"",
        file.string());
    return;
  }
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  auto* const card_of = library ? reinterpret_cast<decltype(&dsengine_card)>(dlsym(library, "dsengine_card")) : nullptr;
  DSE_CHECK_USER(card_of, "device 'cuda': {} cannot be opened: {}", file.string(), dlerror());
  opened = card_of(index);
}

int64_t cuda_free_memory(int index) {
  const c10::impl::VirtualGuardImpl guard(c10::kCUDA);
  const c10::Device before = guard.exchangeDevice(c10::Device(c10::kCUDA, c10::DeviceIndex(index)));
  auto* const memory = runtime<int(size_t*, size_t*)>("cudaMemGetInfo");
  size_t free = 0, total = 0;
  const std::string failed = memory ? failure(memory(&free, &total)) : "there is no CUDA runtime";
  guard.setDevice(before);
  DSE_CHECK_USER(failed.empty(), "device 'cuda:{}': its memory cannot be asked for: {}", index, failed);
  return int64_t(free);
}

bool pin_host_memory(void* begin, size_t bytes) {
  if (!opened) return false;
  constexpr unsigned kOfAllCards = 1;  // cudaHostRegisterPortable
  auto* const pin = runtime<int(void*, size_t, unsigned)>("cudaHostRegister");
  const std::string failed = pin ? failure(pin(begin, bytes, kOfAllCards)) : "there is no CUDA runtime";
  if (failed.empty()) return true;
  if (auto* const forget = runtime<int()>("cudaGetLastError")) forget();
  spdlog::warn("memory event=not_pinned bytes={} reason=\"{}\" note=\"copies of it to the card are slower\"", bytes,
               failed);
  return false;
}

void unpin_host_memory(void* begin) {
  if (auto* const wait = runtime<int()>("cudaDeviceSynchronize")) wait();
  if (auto* const unpin = runtime<int(void*)>("cudaHostUnregister")) unpin(begin);
}

}  // namespace dsengine
