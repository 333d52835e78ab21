// Supervised fine-tuning: the mean over target tokens of -log p.
#include <dsengine/algorithm.hpp>

struct Sft {
  static constexpr const char* summary = "supervised fine-tuning on records";
  static constexpr dse::Needs needs{.roles = dse::actor, .source = dse::records};

  explicit Sft(dse::Options&) {}

  template <class Real>
  Real token_loss(const dse::Token<Real>& t) const {
    return -t.logp;
  }
};
DSE_ALGORITHM("sft", Sft)
