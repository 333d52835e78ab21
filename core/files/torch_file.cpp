#include "files/torch_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include "base/check.h"
#include "files/numbers.h"
#include "files/pickle.h"
#include "files/zip.h"

namespace dsengine {
namespace {

// The archive's one folder, with its slash: torch.save names it after the file.
std::string archive_folder(const ZipMembers& members, const std::string& where) {
  for (const auto& [name, bytes] : members) {
    constexpr std::string_view kPickle = "/data.pkl";
    const auto slash = name.find('/');
    if (slash != std::string::npos && name.substr(slash) == kPickle) return name.substr(0, slash + 1);
  }
  user_error(fmt::format("{}: a zip archive, but not one of torch.save: it has no data.pkl", where));
}

bool is_row_major(std::span<const int64_t> shape, std::span<const int64_t> strides) {
  int64_t expected = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    if (shape[d] != 1 && strides[d] != expected) return false;
    expected *= shape[d];
  }
  return true;
}

// Walks the storage offsets of a strided view in row-major order.
class StridedWalk {
 public:
  StridedWalk(std::span<const int64_t> shape, std::span<const int64_t> strides, uint64_t offset, uint64_t first)
      : shape_(shape.begin(), shape.end()), strides_(strides.begin(), strides.end()), at_(offset) {
    index_.resize(shape.size());
    for (size_t d = shape.size(); d-- > 0;) {
      index_[d] = first % shape_[d];
      at_ += index_[d] * strides_[d];
      first /= shape_[d];
    }
  }

  uint64_t at() const { return at_; }

  void advance() {  // like an odometer, the last index first
    for (size_t d = shape_.size(); d-- > 0;) {
      at_ += strides_[d];
      if (++index_[d] < shape_[d]) return;
      at_ -= shape_[d] * strides_[d];
      index_[d] = 0;
    }
  }

 private:
  std::vector<uint64_t> shape_, strides_, index_;
  uint64_t at_;
};

}  // namespace

TorchFile::TorchFile(const std::filesystem::path& path) : file_(path) {
  const std::string where = path.string();
  DSE_CHECK_USER(is_zip(file_.bytes()),
                 "{}: not the zip form of torch.save (torch 1.6 and later): load it in torch and save it again", where);
  const ZipMembers members = read_stored_zip(file_.bytes(), where);
  const std::string folder = archive_folder(members, where);
  if (const auto order = members.find(folder + "byteorder"); order != members.end()) {
    const bool big = !order->second.empty() && order->second.front() == std::byte{'b'};
    DSE_CHECK_USER(!big, "{}: saved on a big-endian machine", where);
  }

  std::vector<TensorEntry> entries;
  for (auto& tensor : parse_tensor_pickle(members.at(folder + "data.pkl"), where)) {
    const size_t width = dtype_bytes(tensor.dtype);
    const auto storage = members.find(folder + "data/" + tensor.storage);
    DSE_CHECK_USER(storage != members.end() && storage->second.size() / width >= tensor.storage_elements,
                   "{}: the storage '{}' of '{}' is missing or cut short", where, tensor.storage, tensor.name);
    entries.push_back({.name = std::move(tensor.name),
                       .dtype = tensor.dtype,
                       .shape = tensor.shape,
                       .begin = tensor.offset * width,
                       .end = tensor.end().value() * width});
    views_.push_back({storage->second, std::move(tensor.strides), tensor.offset});
  }
  set_entries(std::move(entries), where);
}

const TorchFile::View& TorchFile::view_of(const TensorEntry& entry) const {
  return views_.at(static_cast<size_t>(&entry - entries().data()));
}

std::optional<std::span<const std::byte>> TorchFile::stored_bytes(const TensorEntry& entry) const {
  if (entry.elements() == 0) return std::span<const std::byte>();
  const View& view = view_of(entry);
  if (!is_row_major(entry.shape, view.strides)) return std::nullopt;
  const size_t width = dtype_bytes(entry.dtype);
  return view.storage.subspan(view.offset * width, entry.elements() * width);
}

void TorchFile::read_f32(const TensorEntry& entry, uint64_t first, std::span<float> out) const {
  if (out.empty()) return;
  const View& view = view_of(entry);
  const size_t width = dtype_bytes(entry.dtype);
  if (is_row_major(entry.shape, view.strides)) {
    to_f32(entry.dtype, view.storage.subspan((view.offset + first) * width, out.size() * width), out);
    return;
  }
  constexpr size_t kChunk = 4096;  // elements gathered before they are converted
  std::array<std::byte, kChunk * 8> gathered;
  StridedWalk walk(entry.shape, view.strides, view.offset, first);
  while (!out.empty()) {
    const size_t count = std::min(kChunk, out.size());
    for (size_t i = 0; i < count; ++i, walk.advance()) {
      std::memcpy(gathered.data() + i * width, view.storage.data() + walk.at() * width, width);
    }
    to_f32(entry.dtype, std::span(gathered).first(count * width), out.first(count));
    out = out.subspan(count);
  }
}

}  // namespace dsengine
