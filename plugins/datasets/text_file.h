// What the readers of text files share: a file's whole text, plain or gzip, and whether it is UTF-8.
//
//   const std::string text = read_text_file("a.txt.gz");       // throws, naming the file
//   if (const auto bad = invalid_text(text)) …                 // offset of the first byte that is no text
#pragma once
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <dsengine/plugin.hpp>

#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace {

[[noreturn]] inline void cannot_read(const std::string& path, const std::string& why) {
  throw dse::Failure(path + ": cannot be read: " + why, DSE_BAD_DATA);
}

// A regular file's bytes. A read that fails in the middle is an error, never the end.
inline std::string read_file_bytes(const std::string& path) {
  // Non-blocking, so that a named pipe is refused rather than waited for.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (file < 0) throw dse::Failure(path + ": cannot be opened: " + std::strerror(errno), DSE_BAD_DATA);
  const auto closer = [](const int* f) { close(*f); };
  const std::unique_ptr<const int, decltype(closer)> close_at_end(&file, closer);
  struct stat status {};
  if (fstat(file, &status) != 0) cannot_read(path, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) cannot_read(path, "it is not a regular file");
  std::string bytes;
  char buffer[1 << 16];
  for (ssize_t count = 1; count != 0;) {
    count = read(file, buffer, sizeof buffer);
    if (count < 0 && errno != EINTR) cannot_read(path, std::strerror(errno));
    if (count > 0) bytes.append(buffer, size_t(count));
  }
  return bytes;
}

// The text of a gzip file: its members one after the other (RFC 1952). What follows the last of them may be zeros, as
// tapes are filled up; anything else is an error, for it could be a damaged member.
inline std::string unpacked(std::string_view gzip, const std::string& path) {
  std::string text;
  for (bool first = true; !gzip.empty(); first = false) {
    if (!first && gzip.find_first_not_of('\0') == gzip.npos) break;
    z_stream stream{};
    if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) cannot_read(path, "zlib has no memory");
    const std::unique_ptr<z_stream, int (*)(z_streamp)> end(&stream, inflateEnd);
    char buffer[1 << 16];
    for (int code = Z_OK; code != Z_STREAM_END;) {
      // zlib counts in 32 bits: a large file is handed over in parts.
      const auto part = gzip.substr(0, size_t{1} << 30);
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(part.data())), stream.avail_in = uInt(part.size());
      stream.next_out = reinterpret_cast<Bytef*>(buffer), stream.avail_out = sizeof buffer;
      code = inflate(&stream, Z_NO_FLUSH);
      gzip.remove_prefix(part.size() - stream.avail_in);
      const size_t made = sizeof buffer - stream.avail_out;
      text.append(buffer, made);
      if (code == Z_BUF_ERROR || (code == Z_OK && gzip.empty() && made == 0)) cannot_read(path, "it is cut short");
      if (code != Z_OK && code != Z_STREAM_END) cannot_read(path, stream.msg ? stream.msg : "damaged gzip data");
    }
  }
  return text;
}

inline std::string read_text_file(const std::string& path) {
  std::string bytes = read_file_bytes(path);
  return bytes.starts_with("\x1f\x8b") ? unpacked(bytes, path) : bytes;
}

// Bytes of the UTF-8 character at `at`; 0 where there is none: overlong forms, surrogates and what lies beyond
// U+10FFFF are none (The Unicode Standard, table 3-7).
inline size_t character_size(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return at + i < text.size() ? uint8_t(text[at + i]) : uint8_t{0}; };
  const auto in = [&](size_t i, uint8_t first, uint8_t last) { return byte(i) >= first && byte(i) <= last; };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return in(1, 0x80, 0xBF) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF)
    return in(1, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF) && in(2, 0x80, 0xBF) ? 3 : 0;
  if (lead >= 0xF0 && lead <= 0xF4)
    return in(1, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF) && in(2, 0x80, 0xBF) && in(3, 0x80, 0xBF) ? 4
                                                                                                                   : 0;
  return 0;
}

// The offset of the first zero byte or byte that is not UTF-8.
inline std::optional<size_t> invalid_text(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t size = character_size(text, at);
    if (size == 0 || text[at] == '\0') return at;
    at += size;
  }
  return std::nullopt;
}

}  // namespace
