#include "files/weights.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/json.h"
#include "base/printable.h"
#include "base/regular_file.h"
#include "files/atomic_directory.h"
#include "files/four_bit.h"
#include "files/numbers.h"
#include "files/torch_file.h"
#include "files/unique_json.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kIndexEnding = ".index.json";
constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr std::array kWeightFiles{
    kSingleFile,        kIndexFile, "pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.safetensors",
    "adapter_model.bin"};

std::unique_ptr<WeightSource> open_source(const fs::path& file) {
  if (file.extension() == ".safetensors") return std::make_unique<SafetensorsFile>(file);
  DSE_CHECK_USER(file.extension() == ".bin", "{}: weights are read from .safetensors and .bin files", file.string());
  return std::make_unique<TorchFile>(file);
}

// An index comes from outside: it may name files of its own directory only.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

uint64_t byte_count(const TensorDeclaration& tensor) {
  const auto count = element_count(tensor.shape);
  DSE_CHECK(count, "shape {} of '{}'", shape_text(tensor.shape), tensor.name);
  return *count * dtype_bytes(tensor.dtype);
}

}  // namespace

WeightDirectory WeightDirectory::open(const fs::path& directory) {
  DSE_CHECK_USER(fs::is_directory(directory), "{}: no such model directory", directory.string());
  const auto found = std::find_if(kWeightFiles.begin(), kWeightFiles.end(),
                                  [&](const char* name) { return file_exists(directory / name); });
  DSE_CHECK_USER(found != kWeightFiles.end(), "{}: no weights here: looked for {}", directory.string(),
                 fmt::join(kWeightFiles, ", "));
  const fs::path path = directory / *found;
  if (!path.string().ends_with(kIndexEnding)) return open_file(path);
  WeightDirectory weights;
  weights.path_ = directory;
  weights.add_shards(path);
  weights.join_four_bit();
  return weights;
}

WeightDirectory WeightDirectory::open_file(const fs::path& file) {
  WeightDirectory weights;
  weights.path_ = file;
  weights.sources_.push_back(open_source(file));
  for (const auto& entry : weights.sources_[0]->entries()) weights.add(*weights.sources_[0], entry);
  weights.join_four_bit();
  return weights;
}

void WeightDirectory::add(const WeightSource& source, const TensorEntry& entry) {
  names_.push_back(entry.name);
  places_.emplace(entry.name, TensorPlace{&source, &entry});
}

void WeightDirectory::add_shards(const fs::path& index) {
  const std::string where = index.string();
  const UniqueJson json = parse_unique_json(read_text(index), where);
  DSE_CHECK_USER(json.is_object() && json.contains("weight_map") && json["weight_map"].is_object(),
                 "{}: has no weight_map", where);
  std::map<std::string, std::vector<std::string>> tensors_of;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    DSE_CHECK_USER(file.is_string() && is_plain_name(file.get_ref<const std::string&>()),
                   "{}: '{}' is said to be in {}; only the name of a file beside the index is allowed", where, tensor,
                   file.dump());
    tensors_of[file.get<std::string>()].push_back(tensor);
  }
  for (const auto& [file, tensors] : tensors_of) {
    const fs::path path = index.parent_path() / file;
    DSE_CHECK_USER(file_exists(path), "{}: the shard {} is missing", where, path.string());
    sources_.push_back(open_source(path));
    for (const auto& tensor : tensors) {
      const TensorEntry* entry = sources_.back()->find(tensor);
      DSE_CHECK_USER(entry, "{}: '{}' is not in its shard {}", where, tensor, file);
      add(*sources_.back(), *entry);
    }
  }
}

void WeightDirectory::join_four_bit() {
  auto source = std::make_unique<FourBitSource>(places_, path_.string());
  if (source->entries().empty()) return;
  for (const auto& entry : source->entries()) places_.insert_or_assign(entry.name, TensorPlace{source.get(), &entry});
  for (const auto& part : source->parts()) places_.erase(part);
  std::erase_if(names_, [&](const std::string& name) { return source->parts().contains(name); });
  four_bit_ = source.get();
  sources_.push_back(std::move(source));
}

const TensorEntry* WeightDirectory::find(std::string_view name) const {
  const auto found = places_.find(name);
  return found == places_.end() ? nullptr : found->second.entry;
}

const TensorPlace& WeightDirectory::place_of(std::string_view name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) {
    const std::string near = nearest_name(name, names_);
    user_error(error_line("{}: no tensor '{}'{}", path_.string(), name,
                          near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
  }
  return found->second;
}

const TensorEntry& WeightDirectory::at(std::string_view name) const { return *place_of(name).entry; }

bool WeightDirectory::is_four_bit(std::string_view name) const {
  const auto found = places_.find(name);
  return found != places_.end() && found->second.source == four_bit_;
}

void WeightDirectory::read(const TensorPlace& place, uint64_t first, std::span<float> out) const {
  DSE_CHECK_USER(is_float(place.entry->dtype), "{}: '{}' holds {}, not floating-point numbers", path_.string(),
                 place.entry->name, dtype_name(place.entry->dtype));
  place.source->read_f32(*place.entry, first, out);
}

void WeightDirectory::read_f32(std::string_view name, std::span<float> out) const {
  const TensorPlace& place = place_of(name);
  DSE_CHECK(out.size() == place.entry->elements(), "'{}' of shape {} into {} floats", name,
            shape_text(place.entry->shape), out.size());
  read(place, 0, out);
}

void WeightDirectory::read_f32(std::string_view name, int64_t first_row, int64_t rows, std::span<float> out) const {
  const TensorPlace& place = place_of(name);
  const TensorEntry& entry = *place.entry;
  const int64_t all_rows = entry.shape.empty() ? 1 : entry.shape[0];
  const uint64_t width = entry.row_elements();
  DSE_CHECK(first_row >= 0 && rows >= 0 && first_row <= all_rows && rows <= all_rows - first_row &&
                out.size() == static_cast<uint64_t>(rows) * width,
            "'{}' of shape {}: rows {} to {} into {} floats", name, shape_text(entry.shape), first_row,
            first_row + rows, out.size());
  read(place, static_cast<uint64_t>(first_row) * width, out);
}

WeightWriter::WeightWriter(fs::path directory, SavePlan plan) : directory_(std::move(directory)), shards_(split(plan)) {
  for (const char* name : kWeightFiles) {
    DSE_CHECK_USER(!file_exists(directory_ / name), "{}: already holds {}; give another directory", directory_.string(),
                   name);
  }
  for (size_t i = 0; i < shards_.size(); ++i) {
    for (const auto& tensor : shards_[i].tensors) {
      DSE_CHECK(targets_.emplace(tensor.name, Target{i, tensor.dtype}).second, "'{}' is declared twice", tensor.name);
    }
  }
  open_next_shard();
}

// A shard takes tensors while they fit; a tensor above the limit gets a shard of its own.
std::vector<WeightWriter::Shard> WeightWriter::split(const SavePlan& plan) {
  std::vector<Shard> shards(1);
  uint64_t filled = 0;
  for (const auto& tensor : plan.tensors) {
    const uint64_t bytes = byte_count(tensor);
    if (!shards.back().tensors.empty() && filled + bytes > plan.max_shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().tensors.push_back(tensor);
    filled += bytes;
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].file =
        shards.size() == 1 ? kSingleFile : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
  }
  return shards;
}

void WeightWriter::open_next_shard() {
  if (writer_) writer_->close();
  const Shard& shard = shards_.at(opened_++);
  writer_ = std::make_unique<SafetensorsWriter>(directory_ / shard.file, shard.tensors);
}

void WeightWriter::write(std::string_view name, std::span<const float> values) {
  const auto found = targets_.find(name);
  DSE_CHECK(found != targets_.end(), "'{}' was not declared", name);
  const auto [shard, dtype] = found->second;
  while (opened_ <= shard) open_next_shard();
  std::array<std::byte, 1 << 18> stored;
  const size_t width = dtype_bytes(dtype);
  while (!values.empty()) {
    const auto piece = values.first(std::min(values.size(), stored.size() / width));
    const auto bytes = std::span(stored).first(piece.size() * width);
    from_f32(dtype, piece, bytes);
    writer_->write(name, bytes);
    values = values.subspan(piece.size());
  }
}

void WeightWriter::close() {
  while (opened_ < shards_.size()) open_next_shard();
  writer_->close();
  if (shards_.size() > 1) write_index();
}

// As transformers writes it: sorted keys, two spaces, a newline at the end.
void WeightWriter::write_index() const {
  UniqueJson index;  // its objects are sorted
  uint64_t bytes = 0, elements = 0;
  for (const auto& shard : shards_) {
    for (const auto& tensor : shard.tensors) {
      index["weight_map"][tensor.name] = shard.file;
      elements += element_count(tensor.shape).value();
      bytes += byte_count(tensor);
    }
  }
  index["metadata"] = {{"total_parameters", elements}, {"total_size", bytes}};
  atomic_write_file(directory_ / kIndexFile, index.dump(2) + "\n");
}

}  // namespace dsengine
