// The one place where a step goes from one phase to another: it stops the watch, opens an account for the memory's
// peaks, and tells those who wait for it.
//
//   Phases phases;
//   phases.on_leave(Phase::generate, [&] { scheduler.release(); });
//   phases.restart();
//   { const auto phase = phases.enter(Phase::generate); rollout(); }
//   phases.write_to(line);            // seconds, seconds_generate, …, memory_weights_mb, …
//
// Phases nest: at the end of one, what it stands in goes on. Who is told of a phase's begin may throw, which ends it at
// once, where nothing nests in that phase; who is told of its end throws nothing, for that may be another error's way
// out. One thread.
#pragma once
#include <array>
#include <chrono>
#include <functional>
#include <vector>

#include "base/json.h"
#include "memory/ledger.h"

namespace dsengine {

class Phases {
 public:
  class Scope {
   public:
    Scope(Phases& phases, Phase phase) : phases_(phases), before_(phases.current_) {
      try {
        phases.change(phase);
      } catch (...) {
        phases.change(before_);
        throw;
      }
    }
    ~Scope() { phases_.change(before_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Phases& phases_;
    Phase before_;
  };

  explicit Phases(Ledger& ledger = Ledger::host()) : ledger_(&ledger) {}

  [[nodiscard]] Scope enter(Phase phase) { return {*this, phase}; }
  // Called when it begins or goes on, and when it ends or another begins in it; in the order of registration.
  void on_enter(Phase phase, std::function<void()> f) { told_[size_t(phase)].entered.push_back(std::move(f)); }
  void on_leave(Phase phase, std::function<void()> f) { told_[size_t(phase)].left.push_back(std::move(f)); }

  // Forgets what came before.
  void restart();
  // Since restart(): seconds, in all and by phase; MiB, by tag, in all and by phase.
  void write_to(Json& json);

 private:
  using Clock = std::chrono::steady_clock;
  struct Told {
    std::vector<std::function<void()>> entered, left;
  };
  void change(Phase to);
  void count_time();

  Ledger* ledger_;
  std::array<Told, kChoices<Phase>.size()> told_;
  std::array<double, kChoices<Phase>.size()> seconds_{};
  Phase current_ = Phase::other;
  Clock::time_point since_ = Clock::now();
};

}  // namespace dsengine
