#include "files/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace dsengine {

void write_all(int file, std::span<const std::byte> bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EPIPE) throw ClosedPipe(fmt::format("{}: its reader has gone", path.string()));
    DSE_CHECK_USER(written >= 0, "cannot write {}: {}", path.string(), std::strerror(errno));
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

OutputFile::OutputFile(std::filesystem::path path) : path_(std::move(path)) {
  file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file_ < 0) fail();
}

OutputFile::~OutputFile() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(path_.c_str());
}

void OutputFile::write(std::span<const std::byte> bytes) {
  DSE_CHECK(file_ >= 0, "{} is closed", path_.string());
  write_all(file_, bytes, path_);
}

void OutputFile::close() {
  DSE_CHECK(file_ >= 0, "{} is closed", path_.string());
  if (::fsync(file_) != 0) fail();
  // Linux frees the descriptor even where close reports an error.
  if (::close(std::exchange(file_, -1)) != 0) {
    const int error = errno;
    ::unlink(path_.c_str());
    errno = error;
    fail();
  }
}

void OutputFile::fail() const { user_error(fmt::format("cannot write {}: {}", path_.string(), std::strerror(errno))); }

void sync_path(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  DSE_CHECK_USER(file >= 0, "cannot open {}: {}", path.string(), std::strerror(errno));
  const int result = ::fsync(file);
  const int error = errno;
  ::close(file);
  DSE_CHECK_USER(result == 0, "cannot write {} to disk: {}", path.string(), std::strerror(error));
}

}  // namespace dsengine
