#include "device/graphics_card.h"

#include <dlfcn.h>

#include <array>
#include <memory>

namespace dsengine {

namespace {

// What is called of NVML: every function returns 0 where it did what it should.
struct Memory {
  unsigned long long total, free, used;
};
using Plain = int();
using HandleByIndex = int(unsigned index, void** device);
using NameOf = int(void* device, char* name, unsigned length);
using MemoryOf = int(void* device, Memory* memory);

struct Closes {
  void operator()(void* library) const { dlclose(library); }
};

template <class F>
F* function(void* library, const char* name) {
  return reinterpret_cast<F*>(dlsym(library, name));
}

}  // namespace

std::optional<GraphicsCard> first_graphics_card() {
  const std::unique_ptr<void, Closes> library(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL));
  if (!library) return std::nullopt;
  auto* const init = function<Plain>(library.get(), "nvmlInit_v2");
  auto* const shutdown = function<Plain>(library.get(), "nvmlShutdown");
  auto* const handle = function<HandleByIndex>(library.get(), "nvmlDeviceGetHandleByIndex_v2");
  auto* const name_of = function<NameOf>(library.get(), "nvmlDeviceGetName");
  auto* const memory_of = function<MemoryOf>(library.get(), "nvmlDeviceGetMemoryInfo");
  if (!init || !shutdown || !handle || !name_of || !memory_of || init() != 0) return std::nullopt;
  void* device = nullptr;
  std::array<char, 96> name{};
  Memory memory{};
  const bool told = handle(0, &device) == 0 && name_of(device, name.data(), unsigned(name.size())) == 0 &&
                    memory_of(device, &memory) == 0;
  shutdown();
  if (!told) return std::nullopt;
  return GraphicsCard{name.data(), int64_t(memory.total)};
}

}  // namespace dsengine
