#include "files/mapped_file.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/regular_file.h"

namespace dsengine {

MappedFile::MappedFile(const std::filesystem::path& path) {
  const RegularFile file(path);
  const auto size = static_cast<size_t>(file.size());
  if (size == 0) return;  // mmap refuses an empty range
  void* start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
  DSE_CHECK_USER(start != MAP_FAILED, "cannot map {}: {}", path.string(), std::strerror(errno));
  ::madvise(start, size, MADV_SEQUENTIAL);  // a hint: files are read from front to back, once
  bytes_ = {static_cast<const std::byte*>(start), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace dsengine
