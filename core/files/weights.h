// The weights of a Hugging Face directory, read and written: one file or shards with their index. What bitsandbytes
// keeps in 4 bits is read as the float tensor that it stands for (files/four_bit.h).
//
//   WeightDirectory weights = WeightDirectory::open("models/opt-125m");
//   std::vector<float> norm(weights.at("model.norm.weight").elements());
//   weights.read_f32("model.norm.weight", norm);
//
//   WeightWriter out(directory, {.tensors = {{"w", Dtype::BF16, {2, 3}}}});
//   out.write("w", floats);        // in the declared order; rounded to the declared dtype
//   out.close();
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files/safetensors.h"
#include "files/weight_source.h"

namespace dsengine {

class WeightDirectory {
 public:
  // Takes the first of model.safetensors, its .index.json, pytorch_model.bin, its .index.json,
  // adapter_model.safetensors, adapter_model.bin. Every shard is opened and checked here.
  static WeightDirectory open(const std::filesystem::path& directory);
  // One file: .safetensors, or .bin as torch.save writes it.
  static WeightDirectory open_file(const std::filesystem::path& file);

  // In the order of the files. With an index, the tensors that it lists. Of one in 4 bits its own name alone.
  const std::vector<std::string>& names() const { return names_; }
  // Null where there is none of that name.
  const TensorEntry* find(std::string_view name) const;
  // UserError where there is none of that name.
  const TensorEntry& at(std::string_view name) const;
  // Whether there is a tensor of that name that is kept in 4 bits: its entry says F32 and the shape that it stands for.
  bool is_four_bit(std::string_view name) const;

  // The whole tensor, row-major, from F32, F16, BF16, F64 or 4 bits; out.size() is its element count. Any thread.
  void read_f32(std::string_view name, std::span<float> out) const;
  // Rows [first_row, first_row + rows) along the first dimension.
  void read_f32(std::string_view name, int64_t first_row, int64_t rows, std::span<float> out) const;

 private:
  void add(const WeightSource& source, const TensorEntry& entry);
  void add_shards(const std::filesystem::path& index);
  void join_four_bit();
  const TensorPlace& place_of(std::string_view name) const;
  void read(const TensorPlace& place, uint64_t first, std::span<float> out) const;

  std::filesystem::path path_;
  std::vector<std::unique_ptr<WeightSource>> sources_;
  std::vector<std::string> names_;
  TensorPlaces places_;
  const WeightSource* four_bit_ = nullptr;  // one of sources_: the tensors kept in 4 bits, where there are any
};

struct SavePlan {
  std::vector<TensorDeclaration> tensors{};
  uint64_t max_shard_bytes = 5'000'000'000;
};

// Writes model.safetensors, or model-00001-of-0000N.safetensors and so on with model.safetensors.index.json
// where the tensors take more than one shard. The directory exists and holds no weights yet.
class WeightWriter {
 public:
  WeightWriter(std::filesystem::path directory, SavePlan plan);

  // `name` is the tensor whose turn it is. Its values may come in several pieces, by as many calls.
  void write(std::string_view name, std::span<const float> values);
  // All that was declared must have come; everything is on the disk afterwards.
  void close();

 private:
  struct Shard {
    std::string file{};
    std::vector<TensorDeclaration> tensors{};
  };
  struct Target {
    size_t shard;
    Dtype dtype;
  };

  static std::vector<Shard> split(const SavePlan& plan);
  void open_next_shard();
  void write_index() const;

  std::filesystem::path directory_;
  std::vector<Shard> shards_;
  std::map<std::string, Target, std::less<>> targets_;
  size_t opened_ = 0;  // shards
  std::unique_ptr<SafetensorsWriter> writer_;
};

}  // namespace dsengine
