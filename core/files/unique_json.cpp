#include "files/unique_json.h"

#include <array>
#include <unordered_set>

#include "base/check.h"
#include "base/printable.h"

namespace dsengine {

UniqueJson parse_unique_json(std::string_view text, const std::string& where) {
  using Event = UniqueJson::parse_event_t;
  constexpr int kMaxDepth = 16;
  std::array<std::unordered_set<std::string>, kMaxDepth> seen;  // keys of the open object at each depth
  const auto watch = [&](int depth, Event event, UniqueJson& value) {
    if (event == Event::object_start || event == Event::array_start) {
      DSE_CHECK_USER(depth < kMaxDepth, "{}: JSON nested deeper than {} levels", where, kMaxDepth);
      seen.at(static_cast<size_t>(depth)).clear();
    } else if (event == Event::key) {
      const auto& key = value.get_ref<const std::string&>();
      DSE_CHECK_USER(seen.at(static_cast<size_t>(depth) - 1).insert(key).second, "{}: key '{}' stands twice", where,
                     key);
    }
    return true;
  };
  try {
    return UniqueJson::parse(text.begin(), text.end(), watch);
  } catch (const UniqueJson::exception& e) {
    // nlohmann's text starts with "[json.exception.parse_error.101] "; what follows is for people.
    std::string_view what = e.what();
    if (const auto at = what.find("] "); at != what.npos) what.remove_prefix(at + 2);
    throw UserError(error_line("{}: not valid JSON: {}", where, what));
  }
}

}  // namespace dsengine
