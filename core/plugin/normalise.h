// Reads a struct of the ABI that another version of the header may have filled.
//
//   const auto item = read_struct(raw_item, "item 3");  // dse_item, whole, struct_size = sizeof
//   for (const auto& option : read_array<dse_option>(item.options, item.option_count, "options")) …
//
// A shorter struct reads as if its missing tail were zero; a longer one is accepted if all bytes beyond our
// own are zero. Anything else is a UserError that begins with `what`.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/check.h"

namespace dsengine {

template <class T>
T read_struct(const void* from, const std::string& what) {
  static_assert(offsetof(T, struct_size) == 0);
  // Larger than any struct will be: a bigger size is not a size, and reading so far might fault.
  constexpr uint32_t kLimit = 4096;
  uint32_t size = 0;
  std::memcpy(&size, from, sizeof size);
  DSE_CHECK_USER(size >= sizeof size && size <= kLimit,
                 "{}: struct_size is {}, this host's is {}; set it to sizeof of the struct", what, size, sizeof(T));
  const auto* bytes = static_cast<const unsigned char*>(from);
  if (size > sizeof(T))
    DSE_CHECK_USER(std::all_of(bytes + sizeof(T), bytes + size, [](unsigned char byte) { return byte == 0; }),
                   "{}: uses fields that this host does not know ({} bytes, known {}); install a newer dsengine", what,
                   size, sizeof(T));
  T whole{};
  std::memcpy(&whole, from, std::min<size_t>(size, sizeof(T)));
  whole.struct_size = sizeof(T);
  return whole;
}

// An array of structs, strided by its elements' struct_size.
template <class T>
std::vector<T> read_array(const void* from, uint32_t count, const std::string& what) {
  DSE_CHECK_USER(from || count == 0, "{}: {} announced, but the array is NULL; set the pointer", what, count);
  std::vector<T> result;
  const auto* at = static_cast<const unsigned char*>(from);
  for (uint32_t i = 0; i < count; ++i) {
    result.push_back(read_struct<T>(at, fmt::format("{}[{}]", what, i)));
    uint32_t stride = 0;
    std::memcpy(&stride, at, sizeof stride);
    at += stride;
  }
  return result;
}

}  // namespace dsengine
