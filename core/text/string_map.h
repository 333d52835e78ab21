// Hash maps keyed by text that are searched without making a std::string.
//
//   StringMap<int> ids;
//   ids.emplace("cat", 1);
//   ids.find(text.substr(0, 3));
#pragma once
#include <boost/unordered/unordered_flat_map.hpp>
#include <functional>
#include <string>
#include <string_view>

namespace dsengine {

struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

// Key: std::string, or std::string_view where the texts live elsewhere.
template <class Value, class Key = std::string>
using StringMap = boost::unordered_flat_map<Key, Value, TextHash, std::equal_to<>>;

}  // namespace dsengine
