// libdsengine_cuda: what the engine asks of LibTorch's CUDA libraries by more than tensors.
#include "device/card.h"

#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>

#include <map>
#include <utility>

namespace dsengine {
namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

class GraphReplay : public Replay {
 public:
  explicit GraphReplay(const std::function<void()>& work) {
    static const auto stream = at::cuda::getStreamFromPool();  // one, whose blocks serve every recording
    at::cuda::getCurrentCUDAStream().synchronize();
    {
      const c10::cuda::CUDAStreamGuard guard(stream);  // what is captured is not on the default stream
      work();                                          // libraries make their plans
      stream.synchronize();
      allocator::emptyCache();  // nothing is given back to the card while there is a capture
      graph_.capture_begin(*pool_);
      try {
        work();
      } catch (...) {
        try {
          graph_.capture_end();
        } catch (const c10::Error&) {  // of a capture that is broken
          allocator::endAllocateToPool(stream.device_index(), *pool_);
        }
        throw;
      }
      graph_.capture_end();
    }
    run();
  }
  void run() override { graph_.replay(); }

 private:
  // One for all that there are: they are done one after the other, and what a graph's work lets go of another's may
  // use. Of a pool whose last graph is gone the handle cannot be used again.
  static std::shared_ptr<const at::cuda::MempoolId_t> shared_pool() {
    static std::weak_ptr<const at::cuda::MempoolId_t> last;
    auto pool = last.lock();
    if (!pool) last = pool = std::make_shared<const at::cuda::MempoolId_t>(at::cuda::graph_pool_handle());
    return pool;
  }

  const std::shared_ptr<const at::cuda::MempoolId_t> pool_ = shared_pool();
  at::cuda::CUDAGraph graph_;
};

class OpenCard : public Card {
 public:
  explicit OpenCard(int index) : index_(c10::DeviceIndex(index)) {}

  std::unique_ptr<Replay> record(const std::function<void()>& work) override {
    return std::make_unique<GraphReplay>(work);
  }

  void watch_memory(std::function<void(bool, size_t, size_t)> blocks, std::function<void(size_t)> none_left) override {
    using Entry = c10::CachingDeviceAllocator::TraceEntry;
    allocator::attachAllocatorTraceTracker([blocks = std::move(blocks), index = index_](const Entry& entry) {
      if (entry.device_ != index) return;
      if (entry.action_ == Entry::ALLOC) blocks(true, entry.addr_, entry.size_);
      if (entry.action_ == Entry::FREE_REQUESTED) blocks(false, entry.addr_, entry.size_);
    });
    allocator::attachOutOfMemoryObserver(
        [none_left = std::move(none_left), index = index_](int64_t device, size_t bytes, size_t, size_t) {
          if (device == index) none_left(bytes);
        });
  }

  void limit_memory(int64_t bytes) override {
    const auto all = double(at::cuda::getDeviceProperties(index_)->totalGlobalMem);
    allocator::setMemoryFraction(std::min(1.0, double(bytes) / all), index_);
  }

 private:
  c10::DeviceIndex index_;
};

}  // namespace
}  // namespace dsengine

extern "C" __attribute__((visibility("default"))) dsengine::Card* dsengine_card(int index) {
  static auto& opened = *new std::map<int, std::unique_ptr<dsengine::Card>>;
  auto& card = opened[index];
  if (!card) card = std::make_unique<dsengine::OpenCard>(index);
  return card.get();
}
