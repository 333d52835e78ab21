#include "scratch.h"

#include <memory>
#include <new>

namespace cpu {

float* scratch(int64_t floats, int place) {
  constexpr std::align_val_t alignment{64};
  struct Freed {
    void operator()(float* p) const { ::operator delete[](p, alignment); }
  };
  struct Block {
    std::unique_ptr<float[], Freed> memory;
    int64_t size = 0;
  };
  static thread_local Block blocks[2];
  Block& block = blocks[place];
  if (block.size < floats) {
    block = {};
    block.memory.reset(static_cast<float*>(::operator new[](size_t(floats) * sizeof(float), alignment)));
    block.size = floats;
  }
  return block.memory.get();
}

}  // namespace cpu
