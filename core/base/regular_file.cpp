#include "base/regular_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/printable.h"

namespace dsengine {
namespace {

[[noreturn]] void read_error(const std::filesystem::path& path, int error) {
  throw ReadError(error_line("cannot read {}: {}", path.string(), std::strerror(error)));
}

bool is_absence(int error) { return error == ENOENT || error == ENOTDIR; }

}  // namespace

RegularFile::RegularFile(std::filesystem::path path) : path_(std::move(path)) {
  // Non-blocking, so that a named pipe is refused below rather than waited for; files do not notice.
  file_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (const int error = errno; file_ < 0) {
    // A link in a loop, a name that is not there, a socket: nothing kept a file from being read.
    DSE_CHECK_USER(!is_absence(error) && error != ELOOP && error != ENXIO, "cannot read {}: {}", path_.string(),
                   std::strerror(error));
    read_error(path_, error);
  }
  struct stat status {};
  const bool known = ::fstat(file_, &status) == 0;
  const int error = errno;
  if (known && S_ISREG(status.st_mode)) {
    size_ = uint64_t(status.st_size);
    return;
  }
  ::close(file_);
  if (!known) read_error(path_, error);
  DSE_CHECK_USER(!S_ISDIR(status.st_mode), "cannot read {}: it is a directory, not a regular file", path_.string());
  user_error(fmt::format("cannot read {}: it is not a regular file", shown(path_.string())));
}

RegularFile::~RegularFile() { ::close(file_); }

size_t RegularFile::read(std::span<char> out) {
  size_t filled = 0;
  while (filled < out.size()) {
    const ssize_t count = ::read(file_, out.data() + filled, out.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) read_error(path_, errno);
    if (count == 0) break;
    filled += size_t(count);
  }
  return filled;
}

bool file_exists(const std::filesystem::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) return true;
  if (!is_absence(errno)) read_error(path, errno);
  DSE_CHECK_USER(::lstat(path.c_str(), &status) != 0, "cannot read {}: it is a link to what is not there",
                 path.string());
  if (!is_absence(errno)) read_error(path, errno);
  return false;
}

std::string read_text(const std::filesystem::path& path, uint64_t most_bytes) {
  RegularFile file(path);
  DSE_CHECK_USER(file.size() <= most_bytes,
                 "cannot read {}: its {} bytes are more than the {} that such a file may have", path.string(),
                 file.size(), most_bytes);
  // One byte more than there should be: a file that grows meanwhile, or tells no size, is read to its end.
  std::string text(size_t(file.size()) + 1, '\0');
  for (size_t filled = 0;;) {
    filled += file.read(std::span(text).subspan(filled));
    if (filled < text.size()) {
      text.resize(filled);
      return text;
    }
    DSE_CHECK_USER(text.size() <= most_bytes, "cannot read {}: it has more than the {} bytes that such a file may have",
                   path.string(), most_bytes);
    text.resize(std::min<uint64_t>(2 * text.size(), most_bytes + 1));
  }
}

}  // namespace dsengine
