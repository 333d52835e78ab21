// This thread's floating-point state (rounding, flush-to-zero, precision), put back at the end of a scope: code of
// others may change it, and results would then differ from there on.
//
//   { const FloatState kept; dlopen(…); }      // a library linked with -ffast-math flushes denormals from its
//   constructor
#pragma once
#include <cfenv>
#include <cstdint>

namespace dsengine {

class FloatState {
 public:
  FloatState() { std::fegetenv(&kept_); }
  ~FloatState() { std::fesetenv(&kept_); }
  FloatState(const FloatState&) = delete;
  FloatState& operator=(const FloatState&) = delete;

  // Whether it is another now; flags that operations leave do not count.
  bool changed() const {
    std::fenv_t now;
    std::fegetenv(&now);
    return control(now) != control(kept_);
  }

 private:
  static uint64_t control(const std::fenv_t& state) {
#if defined(__x86_64__)
    constexpr uint32_t flags = 0x3f;  // of MXCSR: what operations met
    return uint64_t{state.__mxcsr & ~flags} << 16 | state.__control_word;
#else
    return state.__fpcr;
#endif
  }
  std::fenv_t kept_;
};

}  // namespace dsengine
