#include "memory/ledger.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>

namespace dsengine {
namespace {

thread_local MemoryTag current_tag = MemoryTag::other;
thread_local Ledger* current_ledger = nullptr;  // null: the device's own

// Whether it was lower.
bool raise_to(std::atomic<int64_t>& peak, int64_t value) {
  int64_t seen = peak.load(std::memory_order_relaxed);
  while (seen < value)
    if (peak.compare_exchange_weak(seen, value, std::memory_order_relaxed)) return true;
  return false;
}

// What the user can set to need less.
const char* advice(MemoryTag tag, Phase phase) {
  const bool training = phase == Phase::actor || phase == Phase::critic;
  if (training && tag == MemoryTag::activations) return "; lower micro_batch_size, or set recompute = true";
  return phase == Phase::generate ? "; lower rollout.slots" : "";
}

}  // namespace

Ledger& Ledger::host() {
  static Ledger& ledger = *new Ledger;
  return ledger;
}

Ledger& Ledger::card() {
  static Ledger& ledger = *new Ledger;
  return ledger;
}

Ledger& Ledger::meta() {
  static Ledger& ledger = *new Ledger;
  return ledger;
}

Ledger& Ledger::offloaded() {
  static Ledger& ledger = *new Ledger;
  return ledger;
}

Ledger& Ledger::meta_offloaded() {
  static Ledger& ledger = *new Ledger;
  return ledger;
}

void Ledger::raise_phase(Phase phase, int64_t bytes) noexcept {
  if (!raise_to(peaks_[size_t(phase)], bytes)) return;
  for (size_t t = 0; t < tags_.size(); ++t)
    at_peak_[size_t(phase)][t].store(now(MemoryTag(t)), std::memory_order_relaxed);
}

void Ledger::charge(MemoryTag tag, int64_t bytes) noexcept {
  auto& account = tags_[size_t(tag)];
  raise_to(account.peak, account.now.fetch_add(bytes, std::memory_order_relaxed) + bytes);
  raise_phase(phase_.load(std::memory_order_relaxed), now_.fetch_add(bytes, std::memory_order_relaxed) + bytes);
}

void Ledger::release(MemoryTag tag, int64_t bytes) noexcept {
  tags_[size_t(tag)].now.fetch_sub(bytes, std::memory_order_relaxed);
  now_.fetch_sub(bytes, std::memory_order_relaxed);
}

int64_t Ledger::peak() const {
  int64_t most = 0;
  for (const auto& peak : peaks_) most = std::max(most, peak.load(std::memory_order_relaxed));
  return most;
}

void Ledger::restart() {
  for (auto& account : tags_) account.peak.store(account.now.load());
  for (auto& peak : peaks_) peak.store(0);
  for (auto& phase : at_peak_)
    for (auto& bytes : phase) bytes.store(0);
  enter(phase_.load());
}

void Ledger::enter(Phase phase) {
  phase_.store(phase);
  raise_phase(phase, now());
}

std::string Ledger::held() const {
  return tags_text([this](MemoryTag tag) { return now(tag); });
}

std::string Ledger::most_held() const {
  return tags_text([this](MemoryTag tag) { return peak(tag); });
}

bool Ledger::has_room_for(uint64_t bytes) const {
  const bool of_host = this == &host() || this == &offloaded();
  const int64_t most = of_host ? host().limit() : limit();
  return most == 0 || int64_t(bytes) <= most - (of_host ? host().now() + offloaded().now() : now());
}

OutOfMemory Ledger::out_of_memory(uint64_t bytes) const {
  const MemoryTag tag = MemoryScope::current();
  const Phase phase = phase_.load();
  const std::string when = phase == Phase::other ? "" : fmt::format(" in phase {}", name_of(phase));
  const std::string of = has_room_for(bytes) ? "" : fmt::format(" of {} (memory_limit)", bytes_text(uint64_t(limit())));
  return OutOfMemory(fmt::format("not enough memory: {} asked for ({}{}), where {}{} are held: {}{}", bytes_text(bytes),
                                 name_of(tag), when, bytes_text(uint64_t(std::max<int64_t>(0, now()))), of, held(),
                                 advice(tag, phase)));
}

MemoryScope::MemoryScope(MemoryTag tag) : before_(current_tag), ledger_before_(current_ledger) { current_tag = tag; }
MemoryScope::MemoryScope(MemoryTag tag, Ledger& ledger) : MemoryScope(tag) { current_ledger = &ledger; }
MemoryScope::~MemoryScope() { current_tag = before_, current_ledger = ledger_before_; }
MemoryTag MemoryScope::current() { return current_tag; }
Ledger& MemoryScope::ledger_or(Ledger& own) { return current_ledger ? *current_ledger : own; }

Charge::Charge(Ledger& ledger, MemoryTag tag, int64_t bytes) : ledger_(ledger), tag_(tag), bytes_(bytes) {
  ledger_.charge(tag_, bytes_);
}

std::string bytes_text(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  double value = double(bytes);
  const char* unit = "";
  for (const char* larger : {"KiB", "MiB", "GiB", "TiB"}) {
    if (value < 1024) break;
    value /= 1024, unit = larger;
  }
  return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : value < 100 ? 1 : 0, unit);
}

std::string tags_text(const std::function<int64_t(MemoryTag)>& bytes_of) {
  std::string text;
  for (size_t t = 0; t < kChoices<MemoryTag>.size(); ++t)
    if (const int64_t bytes = bytes_of(MemoryTag(t)); bytes > 0)
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name_of(MemoryTag(t)), bytes_text(uint64_t(bytes)));
  return text.empty() ? "nothing" : text;
}

double peak_resident_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return double(usage.ru_maxrss) / 1024;
}

}  // namespace dsengine
