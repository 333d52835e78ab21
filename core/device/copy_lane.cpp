#include "device/copy_lane.h"

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <optional>

namespace dsengine {

struct CopyLane::Queue {
  explicit Queue(at::Device where) : guard(where.type()), stream(guard.getStreamFromGlobalPool(where)), where(where) {}

  const c10::impl::VirtualGuardImpl guard;
  const c10::Stream stream;
  const at::Device where;
  std::optional<c10::Event> done{};  // of what was begun last
};

CopyLane::CopyLane(const Device& device)
    : queue_(device.where().is_cuda() ? std::make_unique<Queue>(device.where()) : nullptr) {}

CopyLane::~CopyLane() { join(); }

void CopyLane::begin(const std::function<void()>& work) {
  if (!queue_) return work();
  const c10::Stream device_stream = queue_->guard.getStream(queue_->where);
  c10::Event before(queue_->where.type());
  before.record(device_stream);
  before.block(queue_->stream);
  queue_->guard.exchangeStream(queue_->stream);
  const auto leave = [&] {
    queue_->guard.exchangeStream(device_stream);
    queue_->done.emplace(queue_->where.type());
    queue_->done->record(queue_->stream);
  };
  try {
    work();
  } catch (...) {
    leave();
    throw;
  }
  leave();
}

void CopyLane::join() noexcept {
  if (!queue_ || !queue_->done) return;
  try {
    queue_->done->block(queue_->guard.getStream(queue_->where));
  } catch (const c10::Error&) {
  }
  queue_->done.reset();
}

}  // namespace dsengine
