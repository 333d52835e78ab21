#include "memory/phases.h"

#include <algorithm>
#include <string>
#include <utility>

namespace dsengine {

void Phases::count_time() {
  const auto now = Clock::now();
  seconds_[size_t(current_)] += std::chrono::duration<double>(now - since_).count();
  since_ = now;
}

void Phases::change(Phase to) {
  if (to == current_) return;
  // What is handed over belongs to the phase that it was of.
  for (const auto& f : told_[size_t(current_)].left) f();
  count_time();
  current_ = to;
  ledger_->enter(to);
  for (const auto& f : told_[size_t(to)].entered) f();
}

void Phases::restart() {
  since_ = Clock::now();
  seconds_ = {};
  ledger_->restart();
}

void Phases::write_to(Json& json) {
  count_time();
  double total = 0;
  for (const double s : seconds_) total += s;
  json["seconds"] = total;
  for (size_t i = 0; i < seconds_.size(); ++i) json[std::string("seconds_") + name_of(Phase(i))] = seconds_[i];
  const auto mib = [](int64_t bytes) { return double(std::max<int64_t>(0, bytes)) / (1 << 20); };
  for (size_t t = 0; t < kChoices<MemoryTag>.size(); ++t)
    json[std::string("memory_") + name_of(MemoryTag(t)) + "_mb"] = mib(ledger_->peak(MemoryTag(t)));
  json["memory_peak_mb"] = mib(ledger_->peak());
  json["memory_peak_generate_mb"] = mib(ledger_->peak(Phase::generate));
  json["memory_peak_score_mb"] = mib(ledger_->peak(Phase::score));
  json["memory_peak_train_mb"] = mib(std::max(ledger_->peak(Phase::actor), ledger_->peak(Phase::critic)));
}

}  // namespace dsengine
