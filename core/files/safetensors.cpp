#include "files/safetensors.h"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <unordered_set>

#include "base/check.h"
#include "base/json.h"
#include "base/printable.h"
#include "files/numbers.h"
#include "files/unique_json.h"

namespace dsengine {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as the reference: bounds what a bad file makes us parse
constexpr const char* kMetadataKey = "__metadata__";

std::map<std::string, std::string> parse_metadata(const UniqueJson& json, const std::string& where) {
  std::map<std::string, std::string> metadata;
  if (json.is_null()) return metadata;
  DSE_CHECK_USER(json.is_object(), "{}: __metadata__ is not an object", where);
  for (const auto& [key, value] : json.items()) {
    DSE_CHECK_USER(value.is_string(), "{}: __metadata__ '{}' is not a text", where, key);
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

TensorEntry parse_entry(const std::string& name, const UniqueJson& json, const std::string& where) {
  DSE_CHECK_USER(json.is_object(), "{}: tensor '{}' is not an object", where, name);
  const auto field = [&](const char* key) -> const UniqueJson& {
    const auto found = json.find(key);
    DSE_CHECK_USER(found != json.end(), "{}: tensor '{}' has no {}", where, name, key);
    return *found;
  };
  TensorEntry entry{.name = name};

  const UniqueJson& dtype = field("dtype");
  DSE_CHECK_USER(dtype.is_string(), "{}: tensor '{}': dtype is not a text", where, name);
  const auto known = dtype_from_name(dtype.get_ref<const std::string&>());
  DSE_CHECK_USER(known, "{}: tensor '{}' has unknown dtype '{}'", where, name, dtype.get_ref<const std::string&>());
  entry.dtype = *known;

  const UniqueJson& shape = field("shape");
  DSE_CHECK_USER(shape.is_array(), "{}: tensor '{}': shape is not a list", where, name);
  for (const auto& size : shape) {
    const auto number = whole_number(size, 0, INT64_MAX);
    DSE_CHECK_USER(number, "{}: tensor '{}': shape holds {}, not a size", where, name, size.dump());
    entry.shape.push_back(*number);
  }

  const UniqueJson& offsets = field("data_offsets");
  DSE_CHECK_USER(
      offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() && offsets[1].is_number_unsigned(),
      "{}: tensor '{}': data_offsets are not two offsets", where, name);
  entry.begin = offsets[0].get<uint64_t>();
  entry.end = offsets[1].get<uint64_t>();

  const auto count = element_count(entry.shape);
  uint64_t bytes = 0;
  DSE_CHECK_USER(count && !__builtin_mul_overflow(*count, dtype_bytes(entry.dtype), &bytes),
                 "{}: tensor '{}': the size of shape {} overflows", where, name, shape_text(entry.shape));
  DSE_CHECK_USER(entry.begin <= entry.end && entry.end - entry.begin == bytes,
                 "{}: tensor '{}': offsets {} to {} do not hold the {} bytes of {} {}", where, name, entry.begin,
                 entry.end, bytes, dtype_name(entry.dtype), shape_text(entry.shape));
  return entry;
}

uint64_t header_length(std::span<const std::byte> prefix, uint64_t file_size, const std::string& where) {
  DSE_CHECK_USER(file_size >= kLengthBytes && prefix.size() >= kLengthBytes,
                 "{}: {} bytes are too few for a safetensors file", where, file_size);
  uint64_t length = 0;
  std::memcpy(&length, prefix.data(), kLengthBytes);
  DSE_CHECK_USER(length <= kMaxHeaderBytes, "{}: a header of {} bytes; at most {} are allowed", where, length,
                 kMaxHeaderBytes);
  DSE_CHECK_USER(length <= file_size - kLengthBytes && length <= prefix.size() - kLengthBytes,
                 "{}: the header of {} bytes passes the end of the file ({} bytes)", where, length, file_size);
  return length;
}

std::string header_text(const std::vector<TensorDeclaration>& tensors,
                        const std::map<std::string, std::string>& metadata, const std::string& where) {
  // Built piece by piece: one JSON object would look each key up among all before it.
  std::string text = "{";
  const auto add = [&](const std::string& key, const Json& value) {
    try {
      text += fmt::format("{}{}:{}", text.size() > 1 ? "," : "", Json(key).dump(), value.dump());
    } catch (const Json::exception&) {
      user_error(error_line("{}: the name or metadata of '{}' is not UTF-8", where, key));
    }
  };
  if (!metadata.empty()) add(kMetadataKey, metadata);
  uint64_t begin = 0;
  std::unordered_set<std::string_view> names{kMetadataKey};
  for (const auto& tensor : tensors) {
    DSE_CHECK(names.insert(tensor.name).second, "{}: '{}' is declared twice", where, tensor.name);
    const auto count = element_count(tensor.shape);
    DSE_CHECK(count, "{}: shape {} of '{}'", where, shape_text(tensor.shape), tensor.name);
    const uint64_t end = begin + *count * dtype_bytes(tensor.dtype);
    add(tensor.name,
        Json{{"dtype", dtype_name(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}});
    begin = end;
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file_prefix, uint64_t file_size,
                                           const std::string& where) {
  const uint64_t length = header_length(file_prefix, file_size, where);
  const std::string_view text(reinterpret_cast<const char*>(file_prefix.data()) + kLengthBytes, length);
  DSE_CHECK_USER(text.starts_with('{'), "{}: the header does not start with '{{'", where);
  const UniqueJson json = parse_unique_json(text, where + ": header");

  SafetensorsHeader header{.data_begin = kLengthBytes + length};
  for (const auto& [name, value] : json.items()) {
    if (name == kMetadataKey) {
      header.metadata = parse_metadata(value, where);
    } else {
      header.entries.push_back(parse_entry(name, value, where));
    }
  }
  std::sort(header.entries.begin(), header.entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t covered = 0;
  for (const auto& entry : header.entries) {
    DSE_CHECK_USER(entry.begin == covered, "{}: tensor '{}' starts at {}, but the tensors before it end at {}", where,
                   entry.name, entry.begin, covered);
    covered = entry.end;
  }
  const uint64_t held = file_size - header.data_begin;
  DSE_CHECK_USER(covered == held, "{}: the tensors take {} bytes, but the file holds {}", where, covered, held);
  return header;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  auto header = parse_safetensors_header(file_.bytes(), file_.bytes().size(), path.string());
  metadata_ = std::move(header.metadata);
  data_begin_ = header.data_begin;
  set_entries(std::move(header.entries), path.string());
}

std::span<const std::byte> SafetensorsFile::bytes(const TensorEntry& entry) const {
  return file_.bytes().subspan(data_begin_ + entry.begin, entry.end - entry.begin);
}

void SafetensorsFile::read_f32(const TensorEntry& entry, uint64_t first, std::span<float> out) const {
  const size_t width = dtype_bytes(entry.dtype);
  to_f32(entry.dtype, bytes(entry).subspan(first * width, out.size() * width), out);
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorDeclaration> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path), tensors_(std::move(tensors)) {
  const std::string header = header_text(tensors_, metadata, path.string());
  const uint64_t length = header.size();
  file_.write(std::as_bytes(std::span(&length, 1)));
  file_.write(std::as_bytes(std::span(header)));
  for (const auto& tensor : tensors_) {
    sizes_.push_back(element_count(tensor.shape).value() * dtype_bytes(tensor.dtype));
  }
  skip_complete();
}

void SafetensorsWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;  // an empty tensor is complete without being handed over
  DSE_CHECK(turn_ < tensors_.size() && tensors_[turn_].name == name, "{}: '{}' is written out of turn; '{}' is next",
            file_.path().string(), name, turn_ < tensors_.size() ? tensors_[turn_].name : "nothing");
  DSE_CHECK(bytes.size() <= sizes_[turn_] - written_, "{}: '{}' has {} bytes, {} too many", file_.path().string(), name,
            sizes_[turn_], bytes.size() - (sizes_[turn_] - written_));
  file_.write(bytes);
  written_ += bytes.size();
  skip_complete();
}

void SafetensorsWriter::skip_complete() {
  while (turn_ < tensors_.size() && written_ == sizes_[turn_]) ++turn_, written_ = 0;
}

void SafetensorsWriter::close() {
  DSE_CHECK(turn_ == tensors_.size(), "{}: '{}' was not written whole: {} of {} bytes", file_.path().string(),
            tensors_[turn_].name, written_, sizes_[turn_]);
  file_.close();
}

}  // namespace dsengine
