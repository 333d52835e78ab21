// The C++ layer under every kind of plugin: options, errors, and the entry point.
//
//   struct Noise { double scale; explicit Noise(dse::Options& o) : scale(o.real("scale", 1.0, "width")) {} };
//   … one of DSE_ALGORITHM, DSE_MODEL, DSE_DATASET, DSE_REWARD, DSE_KERNEL at the end of the file.
//
// Nothing here crosses the library's border: every exported function is noexcept through dse::guard, which
// turns an exception into host->fail. Throw dse::Failure (or any std::exception) to report an error.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <exception>
#include <initializer_list>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "abi.h"

namespace [[gnu::visibility("hidden")]] dse {

// An error with the ABI's code; its text becomes the one line the user sees.
struct Failure : std::runtime_error {
  dse_status code;
  explicit Failure(const std::string& text, dse_status code_ = DSE_ERROR) : runtime_error(text), code(code_) {}
};

inline const dse_host* host_table = nullptr;  // set once by the entry point
inline const dse_host& host() { return *host_table; }

// A call of the host failed; the host has the reason already.
struct HostFailure {
  dse_status code;
};
inline void check(dse_status status) {
  if (status != DSE_OK) throw HostFailure{status};
}

template <class Body>
dse_status guard(Body&& body) noexcept {
  try {
    body();
    return DSE_OK;
  } catch (const HostFailure& e) {
    return e.code;
  } catch (const Failure& e) {
    return host().fail(e.code, e.what());
  } catch (const std::exception& e) {
    return host().fail(DSE_ERROR, e.what());
  } catch (...) {
    return host().fail(DSE_ERROR, "an exception that is no std::exception");
  }
}

// Runs body(first, last) over pieces of [begin, end) on the host's threads. The first exception of a body is
// thrown again here, once all pieces are done.
template <class Body>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body& body) {
  struct Call {
    const Body& body;
    std::mutex mutex{};
    std::exception_ptr failure{};
  } call{body};
  host().parallel_for(
      begin, end, grain,
      [](void* context, int64_t first, int64_t last) {
        auto& c = *static_cast<Call*>(context);
        try {
          c.body(first, last);
        } catch (...) {
          const std::lock_guard<std::mutex> lock(c.mutex);
          if (!c.failure) c.failure = std::current_exception();
        }
      },
      &call);
  if (call.failure) std::rethrow_exception(call.failure);
}

struct Range {
  double minimum = 1, maximum = 0;  // minimum > maximum: no range
};
inline constexpr double infinity = HUGE_VAL;

// The settings of an item. Its constructor asks for each by name; asked without values, Options records the
// name, type, default and help instead: that is the option table which the host checks TOML against.
class Options {
 public:
  Options() = default;
  Options(Options&&) = default;  // move-only: the table points into the strings
  explicit Options(const dse_values* values) : values_(values) {}

  double real(const char* name, double fallback, const char* help, Range range = {}) {
    char text[32];
    std::snprintf(text, sizeof text, "%.17g", fallback);
    if (std::strtod(shorter(fallback).c_str(), nullptr) == fallback)
      std::snprintf(text, sizeof text, "%s", shorter(fallback).c_str());
    return get(DSE_OPTION_REAL, name, text, nullptr, help, range, fallback, host_table ? host().get_real : nullptr);
  }
  int64_t integer(const char* name, int64_t fallback, const char* help, Range range = {}) {
    return get(DSE_OPTION_INTEGER, name, std::to_string(fallback), nullptr, help, range, fallback,
               host_table ? host().get_integer : nullptr);
  }
  bool boolean(const char* name, bool fallback, const char* help) {
    return get(DSE_OPTION_BOOLEAN, name, fallback ? "true" : "false", nullptr, help, Range{}, int32_t{fallback},
               host_table ? host().get_boolean : nullptr) != 0;
  }
  // choices: allowed values separated by '|', or nullptr for any text.
  std::string string(const char* name, const char* fallback, const char* help, const char* choices = nullptr) {
    return get(DSE_OPTION_STRING, name, fallback, choices, help, Range{}, fallback,
               host_table ? host().get_string : nullptr);
  }

  // Text that must be given.
  std::string required(const char* name, const char* help) {
    std::string value = string(name, "", help);
    if (!values_) table_.back().default_value = nullptr;
    return value;
  }

  const std::vector<dse_option>& table() const { return table_; }

 private:
  static std::string shorter(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.12g", value);
    return text;
  }
  const char* keep(const std::string& text) { return strings_.emplace_back(text).c_str(); }

  template <class T>
  T get(uint32_t type, const char* name, const std::string& text, const char* choices, const char* help, Range range,
        T fallback, dse_status (*read)(const dse_values*, const char*, T*)) {
    if (!values_) {
      table_.push_back({sizeof(dse_option), type, keep(name), keep(text), choices ? keep(choices) : nullptr,
                        range.minimum, range.maximum, keep(help)});
      return fallback;
    }
    T value{};
    check(read(values_, name, &value));
    return value;
  }

  const dse_values* values_ = nullptr;
  std::vector<dse_option> table_;
  std::deque<std::string> strings_;
};

// One item of a plugin, under construction: fills a dse_item when the library is entered.
struct Item {
  uint32_t kind;
  const char* name;
  const char* summary;
  const void* table;
  Options options;  // recorded
};

// Builds the library's table; called by the DSE_… macros.
class Library {
 public:
  static dse_status enter(const dse_host* from, const dse_plugin** out, const char* name, const char* version,
                          void (*add_items)(std::deque<Item>&)) noexcept {
    host_table = from;
    static Library library;
    return guard([&] {
      if (library.items_.empty()) {
        add_items(library.items_);
        for (auto& item : library.items_)
          library.table_.push_back({sizeof(dse_item), item.kind, item.name, item.summary, item.options.table().data(),
                                    uint32_t(item.options.table().size()), 0, item.table});
      }
      library.plugin_ = {
          sizeof(dse_plugin),   DSE_ABI_MAJOR, DSE_ABI_MINOR, uint32_t(library.table_.size()), name, version,
          library.table_.data()};
      *out = &library.plugin_;
    });
  }

 private:
  std::deque<Item> items_;
  std::vector<dse_item> table_;
  dse_plugin plugin_{};
};

// create and destroy of a type that is constructed from Options.
template <class T>
dse_status create(const dse_values* values, void** self) noexcept {
  return guard([&] {
    Options options(values);
    *self = new T(options);
  });
}
template <class T>
void destroy(void* self) noexcept {
  delete static_cast<T*>(self);
}
template <class T>
Options recorded_options() {
  Options options;
  T probe(options);
  return options;
}

// The item's one-line description: `static constexpr const char* summary` of its type, if there is one.
template <class T>
constexpr const char* summary_of() {
  if constexpr (requires { T::summary; })
    return T::summary;
  else
    return "";
}

// The same for the note below, which is made when the library is compiled: "" where it is no constant then.
template <class T>
constexpr const char* noted_summary() {
  if constexpr (requires { typename std::integral_constant<char, T::summary[0]>; })
    return T::summary;
  else
    return "";
}

// What the library says of an item without being opened: an ELF note of the owner "dsengine", whose text is the item's
// kind, name, version, summary and, of a model, architectures, each ended by a zero. The host lists and finds items by
// it, and opens a library only for an item that is asked for.
template <size_t size>
struct ItemNote {
  uint32_t owner_size = 9, text_size = size, type = 1;
  char owner[12] = "dsengine";
  char text[(size + 3) / 4 * 4] = {};
};
constexpr size_t note_size(std::initializer_list<const char*> fields) {
  size_t size = 0;
  for (const char* field : fields) size += std::char_traits<char>::length(field) + 1;
  return size;
}
template <size_t size>
constexpr ItemNote<size> item_note(std::initializer_list<const char*> fields) {
  ItemNote<size> note;
  size_t at = 0;
  for (const char* field : fields) {
    while (*field) note.text[at++] = *field++;
    ++at;
  }
  return note;
}

}  // namespace dse

#define DSE_JOINED_(a, b) a##b
#define DSE_JOINED(a, b) DSE_JOINED_(a, b)
// DSE_ITEM_NOTE("algorithm", "ppo", "1.0", "summary"): of one item. DSE_ALGORITHM and its kin write it; beside
// DSE_PLUGIN it is written once for each item, or for none: the host then asks the library itself, in a process apart.
#define DSE_ITEM_NOTE(...)                                                                         \
  [[gnu::section(".note.dsengine"), gnu::used, gnu::aligned(4)]] static constexpr auto DSE_JOINED( \
      dse_item_note_, __COUNTER__) = dse::item_note<dse::note_size({__VA_ARGS__})>({__VA_ARGS__})

// DSE_PLUGIN("name", "1.0", items.push_back(dse::algorithm_item<Ppo>("ppo")); …): a library of several items.
#define DSE_PLUGIN(name, version, ...)                                                                       \
  extern "C" DSE_EXPORT dse_status dse_plugin_entry(const dse_host* host, const dse_plugin** out) {          \
    return dse::Library::enter(host, out, name, version, [](std::deque<dse::Item>& items) { __VA_ARGS__; }); \
  }
