#include "plugin/host.h"

#include <spdlog/spdlog.h>

#include <atomic>
#include <mutex>
#include <set>

#include "base/check.h"
#include "base/printable.h"
#include "plugin/options.h"

namespace dsengine {
namespace {

thread_local std::string failure_text;

std::string one_line(const char* text) { return printable_line(text ? text : ""); }

dse_status fail(dse_status code, const char* text) {
  failure_text = one_line(text);
  return code;
}

void log(uint32_t level, const char* text) {
  const auto severity = level == DSE_LOG_DEBUG  ? spdlog::level::debug
                        : level == DSE_LOG_INFO ? spdlog::level::info
                                                : spdlog::level::warn;
  spdlog::log(severity, "{}", text ? text : "");
}

void run_serially(int64_t begin, int64_t end, int64_t, void (*body)(void*, int64_t, int64_t), void* context) {
  if (begin < end) body(context, begin, end);
}

std::atomic<ParallelFor> parallel_for_function{run_serially};

// The plugin's own floating-point state stays with the thread that it set it on: the host's threads may begin here, and
// would take it over for good.
void parallel_for(int64_t begin, int64_t end, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
  struct Call {
    void (*body)(void*, int64_t, int64_t);
    void* context;
  } call{body, context};
  const FloatState of_plugin;
  std::fesetenv(FE_DFL_ENV);
  parallel_for_function.load()(
      begin, end, grain,
      [](void* to, int64_t first, int64_t last) {
        const FloatState kept;
        const auto& c = *static_cast<Call*>(to);
        c.body(c.context, first, last);
      },
      &call);
}

std::atomic<int64_t> float_changes{0};

// Stored: how an OptionSet holds the type; Out: how the ABI hands it over.
template <class Stored, class Out>
dse_status get(const dse_values* values, const char* name, Out* out) {
  if (!values || !name || !out) return fail(DSE_BAD_OPTION, "an option was read with a NULL argument");
  const auto found = values->by_name.find(name);
  if (found == values->by_name.end())
    return fail(DSE_BAD_OPTION, fmt::format("option '{}' is not in the item's option table", name).c_str());
  const auto* value = std::get_if<Stored>(&found->second);
  if (!value)
    return fail(DSE_BAD_OPTION,
                fmt::format("option '{}' was read as another type than its table declares", name).c_str());
  if constexpr (std::is_same_v<Stored, std::string>)
    *out = value->c_str();
  else
    *out = static_cast<Out>(*value);
  return DSE_OK;
}

}  // namespace

const dse_host& host_table() {
  static const dse_host table{sizeof(dse_host),
                              DSE_ABI_MAJOR,
                              DSE_ABI_MINOR,
                              0,
                              fail,
                              log,
                              parallel_for,
                              get<bool, int32_t>,
                              get<int64_t, int64_t>,
                              get<double, double>,
                              get<std::string, const char*>};
  return table;
}

void set_parallel_for(ParallelFor function) { parallel_for_function = function ? function : run_serially; }

int64_t FloatGuard::changes() { return float_changes; }

void FloatGuard::note_change(std::string_view who) {
  ++float_changes;
  static std::mutex mutex;
  static std::set<std::string, std::less<>> told;
  const std::scoped_lock lock(mutex);
  if (!told.emplace(who).second) return;
  spdlog::warn(
      "floating_point changed_by=\"{}\" note=\"rounding or flush-to-zero was set for the whole thread and is put back: "
      "build the library, and what it links, without -ffast-math\"",
      who);
}

void clear_failure() { failure_text.clear(); }

void check_status(dse_status status, const std::string& context) {
  if (status == DSE_OK) return;
  const std::string text = std::exchange(failure_text, {});
  DSE_CHECK_USER(!text.empty(), "{}: failed with code {} and gave no reason; ask the plugin's author", context, status);
  throw UserError(context + ": " + shown(text, 5 * kMostShown));  // a sentence of the plugin's, with values in it
}

void crossed_exception(const std::string& context) {
  try {
    throw;
  } catch (const std::exception& e) {
    throw UserError(fmt::format("{}: threw a C++ exception ({}); a plugin must catch its own: ask its author", context,
                                one_line(e.what())));
  } catch (...) {
    throw UserError(fmt::format(
        "{}: threw something that is no std::exception; a plugin must catch its own: ask its author", context));
  }
}

}  // namespace dsengine
