#include "files/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "base/check.h"

namespace dsengine {

MappedFile::MappedFile(const std::filesystem::path& path) {
  // Non-blocking, so that a named pipe in a file's place is refused below rather than waited for.
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  DSE_CHECK_USER(file >= 0, "cannot read {}: {}", path.string(), std::strerror(errno));
  const auto closer = [](const int* f) { ::close(*f); };
  const std::unique_ptr<const int, decltype(closer)> close_at_end(&file, closer);

  struct stat status {};
  DSE_CHECK_USER(::fstat(file, &status) == 0, "cannot read {}: {}", path.string(), std::strerror(errno));
  DSE_CHECK_USER(S_ISREG(status.st_mode), "cannot read {}: it is not a regular file", path.string());
  const auto size = static_cast<size_t>(status.st_size);
  if (size == 0) return;  // mmap refuses an empty range
  void* start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
  DSE_CHECK_USER(start != MAP_FAILED, "cannot map {}: {}", path.string(), std::strerror(errno));
  ::madvise(start, size, MADV_SEQUENTIAL);  // a hint: files are read from front to back, once
  bytes_ = {static_cast<const std::byte*>(start), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace dsengine
