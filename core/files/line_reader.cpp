#include "files/line_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/check.h"

namespace dsengine {

namespace {
constexpr size_t kBlock = size_t(1) << 20;
}

LineReader::LineReader(std::string path, size_t longest) : path_(std::move(path)), longest_(longest) {
  std::error_code none;
  DSE_CHECK_USER(path_ == "-" || !std::filesystem::is_directory(path_, none), "cannot read {}: it is a directory",
                 path_);
  file_ = path_ == "-" ? STDIN_FILENO : ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  DSE_CHECK_USER(file_ >= 0, "cannot read {}: {}", path_, std::strerror(errno));
}

LineReader::~LineReader() {
  if (file_ > STDIN_FILENO) ::close(file_);
}

// Reads the next block over the last; false at the end.
bool LineReader::fill() {
  buffer_.resize(kBlock);
  ssize_t size = 0;
  do size = ::read(file_, buffer_.data(), kBlock);
  while (size < 0 && errno == EINTR);
  DSE_CHECK_USER(size >= 0, "cannot read {}: {}", path_ == "-" ? "standard input" : path_, std::strerror(errno));
  buffer_.resize(size_t(size)), at_ = 0;
  return size > 0;
}

bool LineReader::next(std::string& line) {
  line.clear(), whole_ = true;
  bool any = false;
  while (at_ < buffer_.size() || fill()) {
    if (!std::exchange(any, true)) ++number_;
    const size_t end = std::min(buffer_.find('\n', at_), buffer_.size());
    const size_t taken = std::min(end - at_, longest_ - line.size());
    line.append(buffer_, at_, taken);
    whole_ = whole_ && taken == end - at_;
    at_ = end + 1;
    if (end < buffer_.size()) return true;
  }
  return any;
}

}  // namespace dsengine
