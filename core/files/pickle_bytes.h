// The bytes of a pickle, read from the front.
//
//   PickleBytes bytes(pickle, "pytorch_model.bin");
//   const auto size = bytes.number<uint32_t>();
//   std::string_view text = bytes.take(size);      // UserError naming the file where it is cut short
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/printable.h"

namespace dsengine {

class PickleBytes {
 public:
  PickleBytes(std::span<const std::byte> pickle, const std::string& where) : rest_(pickle), where_(where) {}

  // UserError, naming the file, where it is not good.
  template <class... Args>
  void check(bool good, fmt::format_string<Args...> format, Args&&... args) const {
    if (!good) user_error(fmt::format("{}: {}", where_, error_line(format, std::forward<Args>(args)...)));
  }

  std::string_view take(uint64_t size) {
    check(size <= rest_.size(), "the pickle is cut short");
    const std::string_view taken(reinterpret_cast<const char*>(rest_.data()), size);
    rest_ = rest_.subspan(size);
    return taken;
  }

  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }

  std::string line() {  // without its end
    std::string text;
    for (char c = take(1)[0]; c != '\n'; c = take(1)[0]) text += c;
    return text;
  }

  int64_t long_integer(uint8_t size) {  // little-endian two's complement
    check(size <= 8, "an integer of {} bytes", size);
    const std::string_view bytes = take(size);
    uint64_t value = size > 0 && (bytes.back() & 0x80) ? ~uint64_t{0} : 0;
    for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[i]);
    return static_cast<int64_t>(value);
  }

 private:
  std::span<const std::byte> rest_;
  const std::string& where_;
};

}  // namespace dsengine
