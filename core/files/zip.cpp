#include "files/zip.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/check.h"

namespace dsengine {
namespace {

// Signatures and fixed sizes of the records (PKWARE's APPNOTE, sections 4.3.7 to 4.3.16).
constexpr uint32_t kLocalHeader = 0x04034b50, kMember = 0x02014b50, kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
constexpr uint64_t kLocalHeaderBytes = 30, kMemberBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr uint16_t kZip64Field = 1;
constexpr uint32_t kIn64 = 0xffffffff;  // a 32-bit size or offset of this value stands in the zip64 field

class Archive {
 public:
  Archive(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  ZipMembers members() const {
    const uint64_t end = find_end();
    uint64_t count = load<uint16_t>(end + 10), at = load<uint32_t>(end + 16);
    if (end >= kLocatorBytes && load<uint32_t>(end - kLocatorBytes) == kEnd64Locator) {
      const auto end64 = load<uint64_t>(end - kLocatorBytes + 8);
      take(end64, kEnd64Bytes);
      check(load<uint32_t>(end64) == kEnd64);
      count = load<uint64_t>(end64 + 32);
      at = load<uint64_t>(end64 + 48);
    }
    ZipMembers members;
    for (uint64_t i = 0; i < count; ++i) at = add_member(at, members);
    return members;
  }

 private:
  void check(bool good) const { DSE_CHECK_USER(good, "{}: a damaged zip archive", where_); }

  std::span<const std::byte> take(uint64_t at, uint64_t size) const {
    check(at <= bytes_.size() && size <= bytes_.size() - at);
    return bytes_.subspan(at, size);
  }

  template <class T>
  T load(uint64_t at) const {
    T value;
    std::memcpy(&value, take(at, sizeof value).data(), sizeof value);
    return value;
  }

  std::string text(uint64_t at, uint64_t size) const {
    const auto bytes = take(at, size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  // The end record lies behind everything but a comment of at most 65535 bytes.
  uint64_t find_end() const {
    check(bytes_.size() >= kEndBytes);
    const uint64_t last = bytes_.size() - kEndBytes;
    for (uint64_t at = last; at + 0xffff >= last; --at) {
      if (load<uint32_t>(at) == kEnd && load<uint16_t>(at + 20) == last - at) return at;
      if (at == 0) break;
    }
    user_error(fmt::format("{}: a zip archive without its end: cut short?", where_));
  }

  // Reads the directory's record at `at`; returns where the next one is.
  uint64_t add_member(uint64_t at, ZipMembers& members) const {
    take(at, kMemberBytes);
    check(load<uint32_t>(at) == kMember);
    const auto flags = load<uint16_t>(at + 8), method = load<uint16_t>(at + 10);
    uint64_t packed = load<uint32_t>(at + 20), size = load<uint32_t>(at + 24), begin = load<uint32_t>(at + 42);
    const uint64_t name_size = load<uint16_t>(at + 28), extra_size = load<uint16_t>(at + 30);
    const uint64_t comment_size = load<uint16_t>(at + 32);
    const std::string name = text(at + kMemberBytes, name_size);
    const uint64_t extra = at + kMemberBytes + name_size;
    read_zip64(extra, extra_size, {&size, &packed, &begin});

    constexpr uint16_t kEncrypted = 1;
    DSE_CHECK_USER(method == 0 && packed == size && !(flags & kEncrypted),
                   "{}: member '{}' is compressed or encrypted; torch.save stores members plainly", where_, name);
    take(begin, kLocalHeaderBytes);
    check(load<uint32_t>(begin) == kLocalHeader);
    const uint64_t data = begin + kLocalHeaderBytes + load<uint16_t>(begin + 26) + load<uint16_t>(begin + 28);
    DSE_CHECK_USER(members.emplace(name, take(data, size)).second, "{}: two members are named '{}'", where_, name);
    return extra + extra_size + comment_size;
  }

  // The zip64 field holds, in this order, those of the values that did not fit in 32 bits.
  void read_zip64(uint64_t at, uint64_t size, std::initializer_list<uint64_t*> values) const {
    const auto missing = [](const uint64_t* value) { return *value == kIn64; };
    if (std::none_of(values.begin(), values.end(), missing)) return;
    const uint64_t end = at + size;
    while (at + 4 <= end) {
      const uint64_t field_end = at + 4 + load<uint16_t>(at + 2);
      if (load<uint16_t>(at) == kZip64Field) {
        at += 4;
        for (uint64_t* value : values) {
          if (!missing(value)) continue;
          check(at + 8 <= field_end && field_end <= end);
          *value = load<uint64_t>(at);
          at += 8;
        }
        return;
      }
      at = field_end;
    }
    check(false);
  }

  std::span<const std::byte> bytes_;
  const std::string& where_;
};

}  // namespace

bool is_zip(std::span<const std::byte> bytes) {
  return bytes.size() >= 4 && std::memcmp(bytes.data(), &kLocalHeader, 4) == 0;
}

ZipMembers read_stored_zip(std::span<const std::byte> bytes, const std::string& where) {
  return Archive(bytes, where).members();
}

}  // namespace dsengine
