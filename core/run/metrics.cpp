#include "run/metrics.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/check.h"

namespace dsengine {
namespace {

std::string first_non_finite(const Json& object) {
  for (const auto& [name, value] : object.items()) {
    if (value.is_number_float() && !std::isfinite(value.get<double>())) return name;
    if (!value.is_structured()) continue;
    if (const std::string inner = first_non_finite(value); !inner.empty()) return name + "." + inner;
  }
  return "";
}

// Bytes up to and including the last line end; none where they cannot be read.
std::optional<uint64_t> whole_lines(int file, uint64_t size) {
  char block[4096];
  for (uint64_t end = size; end > 0;) {
    const size_t count = std::min<uint64_t>(sizeof block, end);
    const ssize_t got = pread(file, block, count, static_cast<off_t>(end - count));
    if (got != static_cast<ssize_t>(count)) return std::nullopt;
    if (const void* found = memrchr(block, '\n', count))
      return end - count + static_cast<uint64_t>(static_cast<const char*>(found) - block) + 1;
    end -= count;
  }
  return 0;
}

}  // namespace

MetricsLog::MetricsLog(std::filesystem::path path) : path_(std::move(path)) {
  file_ = open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  struct stat info {};
  if (file_ < 0 || fstat(file_, &info) != 0) fail("open");
  size_ = static_cast<uint64_t>(info.st_size);
  const auto whole = whole_lines(file_, size_);
  if (!whole) fail("read");
  if (*whole < size_) {
    spdlog::warn("metrics_torn_line file={} bytes={}", path_.string(), size_ - *whole);
    cut(*whole);
  }
}

MetricsLog::~MetricsLog() {
  if (file_ >= 0) close(file_);
}

void MetricsLog::append(const Json& object) {
  DSE_CHECK(object.is_object(), "a line of metrics is an object");
  if (const std::string name = first_non_finite(object); !name.empty())
    spdlog::warn("metric_not_finite name={} written=null file={}", name, path_.string());
  const std::string line = object.dump() + "\n";
  ssize_t written;
  do written = write(file_, line.data(), line.size());
  while (written < 0 && errno == EINTR);
  if (written != static_cast<ssize_t>(line.size())) {
    const int error = written < 0 ? errno : ENOSPC;  // a short write to a file means a full disk
    if (written > 0) cut(size_);
    errno = error;
    fail("write to");
  }
  size_ += line.size();
}

uint64_t MetricsLog::offset() const {
  if (fdatasync(file_) != 0) fail("sync");
  return size_;
}

void MetricsLog::truncate(uint64_t offset) {
  char last = '\n';
  if (offset > 0 && offset <= size_ && pread(file_, &last, 1, static_cast<off_t>(offset - 1)) != 1) fail("read");
  DSE_CHECK_USER(offset <= size_ && last == '\n',
                 "{} does not match the checkpoint, which was written at byte {} of it (it has {}): restore the file, "
                 "or start in another output_dir",
                 path_.string(), offset, size_);
  cut(offset);
}

void MetricsLog::fail(const char* action) const {
  throw UserError(fmt::format("cannot {} {}: {}", action, path_.string(), std::strerror(errno)));
}

void MetricsLog::cut(uint64_t size) {
  if (ftruncate(file_, static_cast<off_t>(size)) != 0) fail("truncate");
  size_ = size;
}

}  // namespace dsengine
