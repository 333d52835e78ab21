// Structs that the host hands to a plugin, each at the size that it had in the plugin's minor version: a plugin strides
// arrays by its own sizeof.
//
//   const Handed<dse_answer> handed(answers, handed_size<dse_answer>(item.abi_minor));
//   table.score(self, handed.data(), count, scores);
//
// Borrows what it is given, and lives for one call.
#pragma once
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "dsengine/abi.h"

namespace dsengine {

// Sizes of a struct, and the minor since which it has each; the last is this host's. A struct that grows gets an entry.
struct SizeSince {
  uint32_t minor, size;
};
template <class T>
inline constexpr SizeSince kSizes[] = {{0, 0}};
template <>
inline constexpr SizeSince kSizes<dse_answer>[] = {{0, 64}};
template <>
inline constexpr SizeSince kSizes<dse_batch>[] = {{0, 176}, {3, 184}};
template <>
inline constexpr SizeSince kSizes<dse_gradients>[] = {{0, 40}};

template <class T>
uint32_t handed_size(uint32_t minor) {
  static_assert(std::end(kSizes<T>)[-1].size == sizeof(T), "the struct has grown: give its new size an entry");
  uint32_t size = 0;
  for (const auto& since : kSizes<T>)
    if (since.minor <= minor) size = since.size;
  return size;
}

template <class T>
class Handed {
 public:
  Handed(std::span<const T> items, uint32_t size) : items_(items) {
    if (size == sizeof(T)) return;
    cut_.resize(items.size() * size);
    for (size_t i = 0; i < items.size(); ++i) {
      T item = items[i];
      item.struct_size = size;
      std::memcpy(cut_.data() + i * size, &item, size);
    }
  }
  const T* data() const { return cut_.empty() ? items_.data() : reinterpret_cast<const T*>(cut_.data()); }

 private:
  std::span<const T> items_;
  std::vector<std::byte> cut_;
};

}  // namespace dsengine
