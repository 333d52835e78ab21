// What the engine offers plugins (dse_host), and how a plugin's failure becomes a UserError.
//
//   dse_status (*entry)(const dse_host*, const dse_plugin**) = …;
//   call_plugin("algorithm 'ppo': loss", table.loss, self, &batch, &gradients);  // throws with the plugin's
//   text set_parallel_for(on_torch_threads);  // once, before the first plugin computes
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/float_state.h"
#include "dsengine/abi.h"

namespace dsengine {

// The table handed to every plugin; valid until the process ends.
const dse_host& host_table();

// Who runs host->parallel_for: dse_host's contract, with the body's context. The default runs the whole range
// on the calling thread. Process-wide, for the ABI's function carries no context of the host.
using ParallelFor = void (*)(int64_t begin, int64_t end, int64_t grain,
                             void (*body)(void* context, int64_t first, int64_t last), void* context);
void set_parallel_for(ParallelFor function);

// Forgets what host->fail recorded on this thread.
void clear_failure();
// Throws UserError "context: text" unless `status` is DSE_OK; text is what host->fail recorded on this
// thread.
void check_status(dse_status status, const std::string& context);

// Held around everything that runs code of a plugin: puts the thread's floating-point state back, and says once who
// changed it. `who` outlives it.
class FloatGuard {
 public:
  explicit FloatGuard(std::string_view who) : who_(who) {}
  ~FloatGuard() {
    if (kept_.changed()) note_change(who_);
  }
  // How many times it had to be put back in this process.
  static int64_t changes();

 private:
  static void note_change(std::string_view who);
  const FloatState kept_;
  const std::string_view who_;
};

// Runs code of a plugin on this thread. Exceptions that break the ABI's rule and cross become UserErrors.
[[noreturn]] void crossed_exception(const std::string& context);
template <class Code>
auto in_plugin(const std::string& context, const Code& code) {
  const FloatGuard guard(context);
  try {
    return code();
  } catch (...) {
    crossed_exception(context);
  }
}

// Calls a function of a plugin's table so; what it fails with is a UserError too.
template <class... Parameters, class... Arguments>
void call_plugin(const std::string& context, dse_status (*function)(Parameters...), Arguments&&... arguments) {
  clear_failure();
  check_status(in_plugin(context, [&] { return function(std::forward<Arguments>(arguments)...); }), context);
}

}  // namespace dsengine
