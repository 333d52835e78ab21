// Where a step's time goes: named phases that sum to the wall time.
//
//   PhaseClock clock;
//   clock.restart();
//   { auto phase = clock.enter(Phase::generate); rollout(); }
//   clock.write_to(line);            // seconds, seconds_generate, …
#pragma once
#include <array>
#include <chrono>

#include "base/json.h"

namespace dsengine {

enum class Phase { generate, score, actor, critic, other };

class PhaseClock {
 public:
  class Scope {
   public:
    Scope(PhaseClock& clock, Phase phase) : clock_(clock), before_(clock.current_) { clock.change(phase); }
    ~Scope() { clock_.change(before_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    PhaseClock& clock_;
    Phase before_;
  };

  [[nodiscard]] Scope enter(Phase phase) { return {*this, phase}; }

  // Forgets what came before.
  void restart() {
    change(current_);
    seconds_ = {};
  }

  // Seconds since restart(), in all and by phase.
  void write_to(Json& json) {
    change(current_);
    double total = 0;
    for (const double s : seconds_) total += s;
    json["seconds"] = total;
    constexpr const char* names[] = {"generate", "score", "actor", "critic", "other"};
    for (size_t i = 0; i < seconds_.size(); ++i) json[std::string("seconds_") + names[i]] = seconds_[i];
  }

 private:
  using Clock = std::chrono::steady_clock;
  void change(Phase to) {
    const auto now = Clock::now();
    seconds_[size_t(current_)] += std::chrono::duration<double>(now - since_).count();
    since_ = now, current_ = to;
  }

  std::array<double, 5> seconds_{};
  Phase current_ = Phase::other;
  Clock::time_point since_ = Clock::now();
};

}  // namespace dsengine
