#include "memory/counting_allocator.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>
#include <sys/mman.h>

#include <cstdint>
#include <limits>
#include <mutex>

#include "base/check.h"
#include "device/cuda.h"

namespace dsengine {
namespace {

// In front of a block, at the beginning of what the inner allocator gave.
struct Note {
  Ledger* ledger;
  c10::DeleterFnPtr free;
  int64_t bytes;
  MemoryTag tag;
  bool pinned;
};
constexpr size_t kNoteBytes = c10::gAlignment;
static_assert(sizeof(Note) <= kNoteBytes);
constexpr size_t kPinnedFrom = size_t{1} << 20;  // what is smaller is not worth a call of the driver's

void free_block(void* data) {
  if (!data) return;
  void* begin = static_cast<char*>(data) - kNoteBytes;
  const Note note = *static_cast<Note*>(begin);
  note.ledger->release(note.tag, note.bytes);
  if (note.pinned) unpin_host_memory(begin);
  note.free(begin);
}

// What stays for long and is read from end to end again and again: a page of 2 MiB is one entry of the processor's
// table of addresses where 512 stood, and decoding from 0.4 GB of weights was a tenth faster for it (two cores, Zen 4).
// What comes and goes is left alone: making such pages costs more than it saves.
bool is_read_often(MemoryTag tag) {
  return tag == MemoryTag::weights || tag == MemoryTag::rollout_weights || tag == MemoryTag::kv_cache;
}

// Before the pages are touched. Where the system has no such pages, nothing changes.
void ask_for_large_pages(void* begin, size_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t page = uintptr_t{2} << 20;
  const uintptr_t first = (uintptr_t(begin) + page - 1) / page * page, last = (uintptr_t(begin) + bytes) / page * page;
  if (first < last) (void)madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// What LibTorch's meta device has, a block of no bytes, with a charge as large as it was asked for.
class MetaAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    auto* charge = new Charge(MemoryScope::ledger_or(Ledger::meta()), MemoryScope::current(), int64_t(bytes));
    return {nullptr, charge, [](void* held) { delete static_cast<Charge*>(held); }, c10::DeviceType::Meta};
  }
  void copy_data(void*, const void*, size_t) const override {}
};

}  // namespace

CountingAllocator::CountingAllocator(Ledger& ledger, c10::Allocator& inner) : ledger_(ledger), inner_(inner) {
  DSE_CHECK(inner.raw_deleter(), "an allocator without a raw interface");
}

c10::DataPtr CountingAllocator::allocate(size_t bytes) {
  const c10::Device host(c10::DeviceType::CPU);
  if (bytes == 0) return {nullptr, nullptr, &free_block, host};
  Ledger& ledger = MemoryScope::ledger_or(ledger_);
  void* begin = nullptr;
  try {
    if (bytes > size_t(std::numeric_limits<int64_t>::max()) - kNoteBytes || !ledger.has_room_for(bytes))
      throw ledger.out_of_memory(bytes);
    begin = inner_.raw_allocate(bytes + kNoteBytes);
  } catch (const c10::Error&) {
    throw ledger.out_of_memory(bytes);
  }
  const MemoryTag tag = MemoryScope::current();
  if (is_read_often(tag)) ask_for_large_pages(begin, bytes + kNoteBytes);
  // What is offloaded crosses again and again, for long.
  const bool pinned = &ledger == &Ledger::offloaded() && tag != MemoryTag::workspace && bytes >= kPinnedFrom &&
                      pin_host_memory(begin, bytes + kNoteBytes);
  new (begin) Note{&ledger, inner_.raw_deleter(), int64_t(bytes), tag, pinned};
  ledger.charge(tag, int64_t(bytes));
  void* data = static_cast<char*>(begin) + kNoteBytes;
  return {data, data, &free_block, host};
}

c10::DeleterFnPtr CountingAllocator::raw_deleter() const { return &free_block; }

void count_host_memory() {
  static std::once_flag once;
  std::call_once(once, [] {
    c10::Allocator* allocator = new CountingAllocator(Ledger::host(), *c10::GetCPUAllocator());
    c10::SetCPUAllocator(allocator);
  });
}

void count_meta_memory() {
  static std::once_flag once;
  std::call_once(once, [] { c10::SetAllocator(c10::DeviceType::Meta, new MetaAllocator); });
}

}  // namespace dsengine
