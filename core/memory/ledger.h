// What memory is held for, and how much of it: the book of one device.
//
//   count_host_memory();                                 // memory/counting_allocator.h; once, before the first tensor
//   const MemoryScope scope(MemoryTag::moments);         // what this thread takes from here on is for the moments
//   Ledger::host().now(MemoryTag::moments);              // bytes
//
// A block is charged to the tag that its thread had when it was taken, until it is freed, by whichever thread. What
// LibTorch's allocator gives out is charged by itself (memory/counting_allocator.h); other memory is where somebody
// holds a Charge for it. Scratch memory that LibTorch's libraries take for themselves is not seen.
//
// A limit is on what the ledger has: LibTorch's own libraries and the program come on top of it.
//
// State of the process, for LibTorch has one allocator of a device's memory in it: the books below, and a tag a thread.
// Any thread may charge; restart() and enter() are one thread's at a time.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

#include "base/choice.h"

namespace dsengine {

enum class MemoryTag {
  weights,
  gradients,
  moments,
  average,
  rollout_weights,
  kv_cache,
  activations,
  workspace,
  columns,
  other
};
template <>
inline constexpr auto kChoices<MemoryTag> = std::to_array<const char*>({"weights", "gradients", "moments", "average",
                                                                        "rollout_weights", "kv_cache", "activations",
                                                                        "workspace", "columns", "other"});

// What a step does at a time; outside of one it is other.
enum class Phase { generate, score, actor, critic, other };
template <>
inline constexpr auto kChoices<Phase> = std::to_array<const char*>({"generate", "score", "actor", "critic", "other"});

// Says how much was asked for, for what and when, and what is held.
struct OutOfMemory : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Ledger {
 public:
  Ledger() = default;
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;
  // Of the host's memory; it is never destroyed, for blocks are freed until the process ends.
  static Ledger& host();
  // Of the graphics card's that is open (memory/card_memory.h).
  static Ledger& card();
  // Of tensors that have no values (Device::meta): what they would take.
  static Ledger& meta();
  // Of what a device keeps in another memory than its own (memory/offload.h): the host's, and that of tensors without
  // values.
  static Ledger& offloaded();
  static Ledger& meta_offloaded();

  void charge(MemoryTag tag, int64_t bytes) noexcept;
  void release(MemoryTag tag, int64_t bytes) noexcept;

  // Bytes.
  int64_t now() const { return now_.load(std::memory_order_relaxed); }
  int64_t now(MemoryTag tag) const { return tags_[size_t(tag)].now.load(std::memory_order_relaxed); }
  // The most since restart(): of one tag, of all at once in one phase, of all at once.
  int64_t peak(MemoryTag tag) const { return tags_[size_t(tag)].peak.load(std::memory_order_relaxed); }
  int64_t peak(Phase phase) const { return peaks_[size_t(phase)].load(std::memory_order_relaxed); }
  int64_t peak() const;
  // Of one tag, as the phase was at its peak.
  int64_t at_peak(Phase phase, MemoryTag tag) const {
    return at_peak_[size_t(phase)][size_t(tag)].load(std::memory_order_relaxed);
  }
  // Peaks begin anew with what is held.
  void restart();
  void enter(Phase phase);
  Phase phase() const { return phase_.load(std::memory_order_relaxed); }

  // As tags_text has it.
  std::string held() const;
  std::string most_held() const;
  // Bytes that could not be had for the thread's tag.
  [[nodiscard]] OutOfMemory out_of_memory(uint64_t bytes) const;

  // More than this is not given out; 0: what the system has.
  void set_limit(int64_t bytes) { limit_.store(bytes, std::memory_order_relaxed); }
  int64_t limit() const { return limit_.load(std::memory_order_relaxed); }
  // What the host holds for itself and what is offloaded to it are under the host's limit together.
  bool has_room_for(uint64_t bytes) const;

 private:
  struct Account {
    std::atomic<int64_t> now{0}, peak{0};
  };
  void raise_phase(Phase phase, int64_t bytes) noexcept;

  std::array<Account, kChoices<MemoryTag>.size()> tags_;
  std::atomic<int64_t> now_{0}, limit_{0};
  std::array<std::atomic<int64_t>, kChoices<Phase>.size()> peaks_{};
  std::array<std::array<std::atomic<int64_t>, kChoices<MemoryTag>.size()>, kChoices<Phase>.size()> at_peak_{};
  std::atomic<Phase> phase_{Phase::other};
};

// The thread's tag, until the end of the scope; other where there is none. They nest.
class MemoryScope {
 public:
  explicit MemoryScope(MemoryTag tag);
  // And the book, in place of the device's own.
  MemoryScope(MemoryTag tag, Ledger& ledger);
  ~MemoryScope();
  MemoryScope(const MemoryScope&) = delete;
  MemoryScope& operator=(const MemoryScope&) = delete;
  static MemoryTag current();
  static Ledger& ledger_or(Ledger& own);

 private:
  MemoryTag before_;
  Ledger* ledger_before_;
};

// A ledger's limit, until the end of the scope.
class LimitScope {
 public:
  LimitScope(Ledger& ledger, int64_t bytes) : ledger_(ledger), before_(ledger.limit()) { ledger.set_limit(bytes); }
  ~LimitScope() { ledger_.set_limit(before_); }
  LimitScope(const LimitScope&) = delete;
  LimitScope& operator=(const LimitScope&) = delete;

 private:
  Ledger& ledger_;
  int64_t before_;
};

// Memory that no allocator of LibTorch gave out, for as long as this is held.
class Charge {
 public:
  Charge(Ledger& ledger, MemoryTag tag, int64_t bytes);
  ~Charge() { ledger_.release(tag_, bytes_); }
  Charge(const Charge&) = delete;
  Charge& operator=(const Charge&) = delete;

 private:
  Ledger& ledger_;
  MemoryTag tag_;
  int64_t bytes_;
};

// "512 bytes", "1.50 KiB", "23.0 MiB".
std::string bytes_text(uint64_t bytes);
// "weights 1.20 GiB, gradients 1.20 GiB", what there is of each; "nothing".
std::string tags_text(const std::function<int64_t(MemoryTag)>& bytes_of);

// Most memory that the process has had resident so far, MiB: of everything, noted here or not.
double peak_resident_mb();

}  // namespace dsengine
