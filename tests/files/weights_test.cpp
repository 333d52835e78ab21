#include "files/weights.h"

#include <gmock/gmock.h>

#include "files/numbers.h"
#include "files_support.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const fs::path kSharded = kBins / "sharded";
constexpr uint64_t kShardBytes = 2600;  // what the shards of kSharded were made with

TEST(WeightDirectory, ReadsShardsAsTransformersWroteThem) {
  const auto weights = WeightDirectory::open(kSharded);
  const auto expected = expected_tensors("sharded");
  EXPECT_EQ(weights.names().size(), expected.size());
  for (const auto& tensor : expected) {
    EXPECT_EQ(weights.at(tensor.name).shape, tensor.shape);
    std::vector<float> values(tensor.values.size());
    weights.read_f32(tensor.name, values);
    EXPECT_EQ(values, tensor.values) << tensor.name;
  }
  EXPECT_EQ(weights.find("model.norm"), nullptr);
  EXPECT_THAT(refusal([&] { weights.at("model.norm.weigth"); }), HasSubstr("did you mean 'model.norm.weight'?"));
}

TEST(WeightDirectory, ReadsRows) {
  for (const char* file : {"state_dict.bin", "python.safetensors"}) {
    const auto weights = WeightDirectory::open_file(kBins / file);
    std::vector<float> all(12), rows(6), scalar(1);
    weights.read_f32("transposed", all);
    weights.read_f32("transposed", 1, 2, rows);
    EXPECT_EQ(rows, std::vector<float>(all.begin() + 3, all.begin() + 9)) << file;
    weights.read_f32("scalar", 0, 1, scalar);
    EXPECT_THAT(scalar, ElementsAre(1.25f));
    weights.read_f32("transposed", 4, 0, {});
    EXPECT_THROW(weights.read_f32("transposed", 3, 2, rows), InternalError);
    EXPECT_THROW(weights.read_f32("transposed", rows), InternalError);
    EXPECT_THAT(refusal([&] { weights.read_f32("positions", std::span(all).first(4)); }), HasSubstr("holds I64"));
  }
}

// A directory with an index over one shard that holds "a".
struct IndexedDirectory : TemporaryDirectory {
  explicit IndexedDirectory(const std::string& weight_map) {
    SafetensorsWriter shard(path() / "one.safetensors", {{"a", Dtype::F32, {1}}, {"b", Dtype::F32, {1}}});
    shard.write("a", bytes_of(packed(1.0f)));
    shard.write("b", bytes_of(packed(2.0f)));
    shard.close();
    write_text(path() / "model.safetensors.index.json", weight_map);
  }
  std::string refusal_text() const {
    return refusal([&] { WeightDirectory::open(path()); });
  }
};

TEST(WeightDirectory, AnIndexNamesFilesBesideItOnly) {
  const auto map_to = [](const std::string& file) { return R"({"weight_map":{"a":")" + file + "\"}}"; };
  const IndexedDirectory good(map_to("one.safetensors"));
  EXPECT_THAT(WeightDirectory::open(good.path()).names(), ElementsAre("a"));
  // Each would reach the same good shard if paths were followed.
  const std::string absolute = good.path() / "one.safetensors";
  const std::string files[] = {
      "./one.safetensors", "sub/../one.safetensors", "../one.safetensors", absolute, "..", ".", "", "a\\\\b"};
  for (const std::string& file : files) {
    EXPECT_THAT(IndexedDirectory(map_to(file)).refusal_text(), HasSubstr("beside the index")) << file;
  }
}

TEST(WeightDirectory, RefusesABadIndex) {
  const auto why = [](const char* index) { return IndexedDirectory(index).refusal_text(); };
  EXPECT_THAT(why(R"({"weight_map":{"a":"two.safetensors"}})"), HasSubstr("two.safetensors is missing"));
  EXPECT_THAT(why(R"({"weight_map":{"c":"one.safetensors"}})"), HasSubstr("'c' is not in its shard one.safetensors"));
  EXPECT_THAT(why(R"({"weight_map":{"a":"one.safetensors","a":"one.safetensors"}})"), HasSubstr("stands twice"));
  EXPECT_THAT(why(R"({"weight_map":{"a":1}})"), HasSubstr("beside the index"));
  EXPECT_THAT(why(R"({"weight_map":[]})"), HasSubstr("no weight_map"));
  EXPECT_THAT(why("[]"), HasSubstr("no weight_map"));
  EXPECT_THAT(why("{"), HasSubstr("not valid JSON"));
}

TEST(WeightDirectory, PrefersSafetensorsAndSaysWhatItLookedFor) {
  TemporaryDirectory directory;
  EXPECT_THAT(refusal([&] { WeightDirectory::open(directory.path()); }), HasSubstr("looked for model.safetensors"));
  EXPECT_THAT(refusal([&] { WeightDirectory::open(directory.path() / "no"); }), HasSubstr("no such model directory"));
  fs::copy_file(kBins / "module.bin", directory.path() / "pytorch_model.bin");
  EXPECT_NE(WeightDirectory::open(directory.path()).find("bias"), nullptr);
  fs::copy_file(kBins / "python.safetensors", directory.path() / "model.safetensors");
  EXPECT_EQ(WeightDirectory::open(directory.path()).find("bias"), nullptr);
}

TEST(WeightDirectory, ReadsShardedBinFiles) {
  TemporaryDirectory directory;
  fs::copy_file(kBins / "module.bin", directory.path() / "pytorch_model-00001-of-00002.bin");
  fs::copy_file(kBins / "transposed.bin", directory.path() / "pytorch_model-00002-of-00002.bin");
  write_text(directory.path() / "pytorch_model.bin.index.json", R"({"weight_map":{
      "weight":"pytorch_model-00001-of-00002.bin","w":"pytorch_model-00002-of-00002.bin"}})");
  const auto weights = WeightDirectory::open(directory.path());
  EXPECT_THAT(weights.names(), ElementsAre("weight", "w"));
  std::vector<float> row(66);
  weights.read_f32("w", 1, 1, row);
  EXPECT_EQ(row[1], 65.0f);
}

SavePlan plan_of(const std::vector<ExpectedTensor>& tensors, uint64_t max_shard_bytes) {
  SavePlan plan{.max_shard_bytes = max_shard_bytes};
  for (const auto& tensor : tensors) plan.tensors.push_back({tensor.name, Dtype::F32, tensor.shape});
  return plan;
}

TEST(WeightWriter, WritesShardsAndIndexAsTransformersDoes) {
  const auto tensors = expected_tensors("sharded");
  TemporaryDirectory directory;
  WeightWriter writer(directory.path(), plan_of(tensors, kShardBytes));
  for (const auto& tensor : tensors) writer.write(tensor.name, tensor.values);
  writer.close();
  const char* index = "model.safetensors.index.json";
  EXPECT_EQ(read_text(directory.path() / index), read_text(kSharded / index));
  const auto weights = WeightDirectory::open(directory.path());
  for (const auto& tensor : tensors) {
    std::vector<float> values(tensor.values.size());
    weights.read_f32(tensor.name, values);
    EXPECT_EQ(values, tensor.values) << tensor.name;
  }
}

TEST(WeightWriter, WritesOneFileWhereItFits) {
  const auto tensors = expected_tensors("sharded");
  TemporaryDirectory directory;
  WeightWriter writer(directory.path(), plan_of(tensors, 5'000'000'000));
  for (const auto& tensor : tensors) writer.write(tensor.name, tensor.values);
  writer.close();
  EXPECT_EQ(std::distance(fs::directory_iterator(directory.path()), {}), 1);
  EXPECT_EQ(SafetensorsFile(directory.path() / "model.safetensors").entries().size(), tensors.size());
  EXPECT_THAT(refusal([&] { WeightWriter(directory.path(), {}); }), HasSubstr("already holds model.safetensors"));
}

TEST(WeightWriter, RoundsToTheDeclaredType) {
  // More values than are converted at a time, handed over in two pieces.
  std::vector<float> values(200'000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = 1.0f + static_cast<float>(i) * 0x1p-20f;
  for (const Dtype dtype : {Dtype::F32, Dtype::F16, Dtype::BF16}) {
    TemporaryDirectory directory;
    WeightWriter writer(directory.path(), {.tensors = {{"w", dtype, {2, 100'000}}}});
    writer.write("w", std::span(values).first(150'001));
    writer.write("w", std::span(values).subspan(150'001));
    writer.close();
    const auto weights = WeightDirectory::open(directory.path());
    EXPECT_EQ(weights.at("w").dtype, dtype);
    std::vector<float> read(values.size());
    weights.read_f32("w", read);
    // Half a unit in the last place between 1 and 2.
    const float tolerance = dtype == Dtype::F32 ? 0.0f : dtype == Dtype::F16 ? 0x1p-11f : 0x1p-8f;
    for (size_t i = 0; i < values.size(); ++i) ASSERT_LE(std::abs(read[i] - values[i]), tolerance) << i;
  }
}

TEST(WeightWriter, ATensorAboveTheLimitHasAShardOfItsOwn) {
  TemporaryDirectory directory;
  WeightWriter writer(
      directory.path(),
      {.tensors = {{"a", Dtype::F32, {2}}, {"b", Dtype::F32, {9}}, {"c", Dtype::F32, {2}}}, .max_shard_bytes = 16});
  writer.write("a", std::vector<float>(2));
  writer.write("b", std::vector<float>(9));
  writer.write("c", std::vector<float>(2));
  writer.close();
  for (int i = 1; i <= 3; ++i) {
    const auto file = directory.path() / fmt::format("model-0000{}-of-00003.safetensors", i);
    EXPECT_EQ(SafetensorsFile(file).entries().size(), 1u);
  }
}

TEST(WeightWriter, MisuseIsOurOwnFault) {
  TemporaryDirectory directory;
  WeightWriter writer(directory.path(),
                      {.tensors = {{"a", Dtype::F32, {2}}, {"b", Dtype::F32, {2}}}, .max_shard_bytes = 8});
  const std::vector<float> two(2);
  EXPECT_THROW(writer.write("c", two), InternalError);
  EXPECT_THROW(writer.write("b", two), InternalError);
  EXPECT_THROW(writer.close(), InternalError);
}

}  // namespace
}  // namespace dsengine
