// Weights in 4 bits as bitsandbytes and transformers saved them (tests/golden/make_four_bit.py), and bad ones.
#include "files/four_bit.h"

#include <gmock/gmock.h>

#include <map>
#include <thread>

#include "files/weights.h"
#include "files_support.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

const fs::path kFourBit = fs::path(DSE_TEST_DIR) / "golden" / "four_bit";

std::vector<float> all_of(const WeightDirectory& weights, const std::string& name) {
  std::vector<float> values(weights.at(name).elements());
  weights.read_f32(name, values);
  return values;
}

TEST(FourBit, HasTheValuesOfBitsandbytes) {
  const auto weights = WeightDirectory::open_file(kFourBit / "tensors.safetensors");
  const auto expected = WeightDirectory::open_file(kFourBit / "expected.safetensors");
  const SafetensorsFile file(kFourBit / "expected.safetensors");
  const int64_t skipped = std::stoll(file.metadata().at("rows_skipped"));
  EXPECT_EQ(expected.names().size(), 9u);
  EXPECT_EQ(weights.names().size(), expected.names().size() + 1);
  for (const auto& name : expected.names()) {
    EXPECT_THAT(weights.names(), Contains(name));
    EXPECT_TRUE(weights.is_four_bit(name)) << name;
    const TensorEntry& entry = weights.at(name);
    EXPECT_EQ(entry.dtype, Dtype::F32);
    const auto values = all_of(expected, name);
    if (name == "nested_blocks.weight") {
      EXPECT_THAT(entry.shape, ElementsAre(96, 90));
      std::vector<float> last(values.size());
      weights.read_f32(name, skipped, 96 - skipped, last);
      EXPECT_EQ(last, values);
    } else {
      EXPECT_EQ(entry.shape, expected.at(name).shape);
      EXPECT_EQ(all_of(weights, name), values) << name;
    }
  }
}

TEST(FourBit, WhatStandsBesideIsNotShown) {
  const auto weights = WeightDirectory::open_file(kFourBit / "tensors.safetensors");
  for (const char* part : {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map",
                           ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"}) {
    EXPECT_THAT(weights.names(), Not(Contains(HasSubstr(part))));
    EXPECT_EQ(weights.find("nf4_nested.weight" + std::string(part)), nullptr);
    EXPECT_FALSE(weights.is_four_bit("nf4_nested.weight" + std::string(part)));
  }
  EXPECT_FALSE(weights.is_four_bit("norm.weight"));
  EXPECT_EQ(weights.at("norm.weight").elements(), 4u);
  EXPECT_FALSE(weights.is_four_bit("nothing"));
}

TEST(FourBit, ReadsFromAnyRowAndAnyElement) {
  const auto weights = WeightDirectory::open_file(kFourBit / "tensors.safetensors");
  // Rows of 33: a row begins in either half of a byte, and within a block.
  for (const char* name :
       {"nf4.weight", "nf4_nested.weight", "fp4_nested.weight", "odd.weight", "wide_blocks.weight"}) {
    const auto all = all_of(weights, name);
    const int64_t rows = weights.at(name).shape[0], width = weights.at(name).shape[1];
    for (int64_t first = 0; first <= rows; ++first) {
      for (int64_t count = 0; count <= rows - first; ++count) {
        std::vector<float> read(size_t(count * width));
        weights.read_f32(name, first, count, read);
        EXPECT_EQ(read, std::vector<float>(all.begin() + first * width, all.begin() + (first + count) * width)) << name;
      }
    }
  }
  const SafetensorsFile file(kFourBit / "tensors.safetensors");
  TensorPlaces places;
  for (const auto& entry : file.entries()) places.emplace(entry.name, TensorPlace{&file, &entry});
  const FourBitSource source(places, "file");
  const TensorEntry& odd = *source.find("odd.weight");
  const auto all = all_of(weights, "odd.weight");
  for (size_t first = 0; first <= all.size(); ++first) {
    for (size_t count = 0; count <= all.size() - first; ++count) {
      std::vector<float> read(count);
      source.read_f32(odd, first, read);
      ASSERT_TRUE(std::equal(read.begin(), read.end(), all.begin() + std::ptrdiff_t(first))) << first << " " << count;
    }
  }
  std::vector<float> two(2);
  EXPECT_THROW(source.read_f32(odd, all.size() - 1, two), InternalError);
}

TEST(FourBit, ReadsShardsAsTransformersWroteThem) {
  auto opened = WeightDirectory::open(kFourBit / "sharded");
  const WeightDirectory weights = std::move(opened);
  const auto expected = WeightDirectory::open_file(kFourBit / "sharded_expected.safetensors");
  EXPECT_EQ(weights.names().size(), expected.names().size());
  size_t in_four_bits = 0;
  for (const auto& name : expected.names()) {
    EXPECT_EQ(weights.at(name).shape, expected.at(name).shape) << name;
    EXPECT_EQ(all_of(weights, name), all_of(expected, name)) << name;
    in_four_bits += weights.is_four_bit(name);
  }
  EXPECT_EQ(in_four_bits, 7u);  // of one layer, but for the norms
}

TEST(FourBit, ReadsWhatTorchSaved) {
  const auto weights = WeightDirectory::open_file(kFourBit / "tensors.bin");
  EXPECT_THAT(weights.names(), ElementsAre("nf4_nested.weight"));
  const auto expected = WeightDirectory::open_file(kFourBit / "expected.safetensors");
  EXPECT_EQ(all_of(weights, "nf4_nested.weight"), all_of(expected, "nf4_nested.weight"));
}

TEST(FourBit, ThreadsReadAtOnce) {
  const auto weights = WeightDirectory::open_file(kFourBit / "tensors.safetensors");
  const auto all = all_of(weights, "nested_blocks.weight");
  std::vector<float> read(all.size());
  std::vector<std::thread> threads;
  for (int64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      weights.read_f32("nested_blocks.weight", t * 24, 24, std::span(read).subspan(size_t(t * 24 * 90), 24 * 90));
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(read, all);
}

struct Part {
  Dtype dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

// "w" of shape [2, 33]: 66 elements in two blocks of 64. Code c stands for c; all codes of the first 64 elements are
// 0, 1, …, 15 in turn, those of the last two 5 and 6.
class SmallWeight {
 public:
  SmallWeight() {
    std::string codes, values;
    for (int i = 0; i < 64; i += 2) codes += char((i % 16) << 4 | (i + 1) % 16);
    codes += char(0x56);
    for (int i = 0; i < 16; ++i) values += packed(float(i));
    parts["w"] = {Dtype::U8, {33, 1}, codes};
    parts["w.absmax"] = {Dtype::F32, {2}, packed(0.5f) + packed(2.0f)};
    parts["w.quant_map"] = {Dtype::F32, {16}, values};
    set_state(R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [2, 33]})");
  }

  // 8-bit scales: 128 and 130 stand for 1 and 3; times 0.25, and 0.5 added.
  static SmallWeight nested() {
    SmallWeight made;
    std::string values;
    for (int i = 0; i < 256; ++i) values += packed(float(i - 127));
    made.parts["w.absmax"] = {Dtype::U8, {2}, "\x80\x82"};
    made.parts["w.nested_absmax"] = {Dtype::F32, {1}, packed(0.25f)};
    made.parts["w.nested_quant_map"] = {Dtype::F32, {256}, values};
    made.set_state(made.nested_state("256", "\"float32\"", "0.5"));
    return made;
  }

  static std::string nested_state(const std::string& block, const std::string& dtype, const std::string& offset) {
    return R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [2, 33], "nested_blocksize": )" +
           block + R"(, "nested_dtype": )" + dtype + R"(, "nested_offset": )" + offset + "}";
  }

  SmallWeight& set_state(const std::string& json, const std::string& type = "nf4") {
    std::erase_if(parts, [](const auto& part) { return part.first.starts_with("w.quant_state"); });
    parts["w.quant_state.bitsandbytes__" + type] = {Dtype::U8, {int64_t(json.size())}, json};
    return *this;
  }
  SmallWeight& erase(const std::string& name) {
    parts.erase(name);
    return *this;
  }
  SmallWeight& set(const std::string& name, Part part) {
    parts[name] = std::move(part);
    return *this;
  }

  std::vector<float> read() const {
    const TemporaryDirectory directory;
    return all_of(open(directory), "w");
  }
  std::string refused() const {
    const TemporaryDirectory directory;
    const auto text = refusal([&] { open(directory); });
    const auto where = (directory.path() / "model.safetensors").string() + ": ";
    EXPECT_TRUE(text.empty() || text.starts_with(where)) << text;
    EXPECT_EQ(text.find('\n'), text.npos);
    return text;
  }

  std::map<std::string, Part> parts;

 private:
  WeightDirectory open(const TemporaryDirectory& directory) const {
    std::vector<TensorDeclaration> declared;
    for (const auto& [name, part] : parts) declared.push_back({name, part.dtype, part.shape});
    SafetensorsWriter writer(directory.path() / "model.safetensors", declared);
    for (const auto& [name, part] : parts) writer.write(name, bytes_of(part.bytes));
    writer.close();
    return WeightDirectory::open(directory.path());
  }
};

TEST(FourBit, HighHalfFirstTimesTheBlocksScale) {
  std::vector<float> expected;
  for (int i = 0; i < 64; ++i) expected.push_back(float(i % 16) * 0.5f);
  expected.insert(expected.end(), {10, 12});
  EXPECT_EQ(SmallWeight().read(), expected);
}

TEST(FourBit, ScalesOfEightBits) {
  std::vector<float> expected;
  for (int i = 0; i < 64; ++i) expected.push_back(float(i % 16) * 0.75f);
  expected.insert(expected.end(), {5 * 1.25f, 6 * 1.25f});
  EXPECT_EQ(SmallWeight::nested().read(), expected);
  // One scale to a block of scales.
  auto two = SmallWeight::nested();
  two.set("w.nested_absmax", {Dtype::F32, {2}, packed(0.25f) + packed(0.5f)});
  two.set_state(SmallWeight::nested_state("1", "\"float32\"", "0.5"));
  expected[64] = 5 * 2, expected[65] = 6 * 2;
  EXPECT_EQ(two.read(), expected);
}

TEST(FourBit, RefusesWhatIsMissing) {
  const std::string state = "w.quant_state.bitsandbytes__nf4";
  EXPECT_THAT(SmallWeight().erase("w").refused(), HasSubstr("there is '" + state + "', but no 'w'"));
  for (const char* part : {"w.absmax", "w.quant_map"})
    EXPECT_THAT(SmallWeight().erase(part).refused(), HasSubstr(fmt::format("but there is no '{}'", part)));
  for (const char* part : {"w.absmax", "w.nested_absmax", "w.nested_quant_map"})
    EXPECT_THAT(SmallWeight::nested().erase(part).refused(), HasSubstr(fmt::format("but there is no '{}'", part)));
  EXPECT_THAT(SmallWeight().erase(state).refused(), HasSubstr("no '" + state + "' or …fp4: 'w' was not saved whole"));
  // Names that end alike but stand beside no codes are anyone's.
  SmallWeight other;
  other.parts["v"] = other.parts["v.absmax"] = other.parts["u.quant_map"] = {Dtype::F32, {1}, packed(1.0f)};
  EXPECT_THAT(other.refused(), IsEmpty());
}

TEST(FourBit, RefusesOtherSizesAndTypes) {
  const std::string sixteen(64, '\0');
  const auto with = [](const std::string& name, Part part) {
    return SmallWeight().set(name, std::move(part)).refused();
  };
  const auto nested = [](const std::string& name, Part part) {
    return SmallWeight::nested().set(name, std::move(part)).refused();
  };
  EXPECT_THAT(with("w", {Dtype::U8, {32, 1}, std::string(32, '\0')}), HasSubstr("asks for a column of 33 bytes"));
  EXPECT_THAT(with("w", {Dtype::U8, {34, 1}, std::string(34, '\0')}), HasSubstr("'w' is U8 [34, 1]"));
  EXPECT_THAT(with("w", {Dtype::U8, {1, 33}, std::string(33, '\0')}), HasSubstr("'w' is U8 [1, 33]"));
  EXPECT_THAT(with("w", {Dtype::U8, {33}, std::string(33, '\0')}), HasSubstr("'w' is U8 [33]"));
  EXPECT_THAT(with("w", {Dtype::F16, {33, 1}, std::string(66, '\0')}), HasSubstr("'w' is F16 [33, 1]"));
  EXPECT_THAT(with("w.absmax", {Dtype::F32, {1}, packed(1.0f)}), HasSubstr("asks for 2 elements of F32"));
  EXPECT_THAT(with("w.absmax", {Dtype::F32, {3}, std::string(12, '\0')}), HasSubstr("'w.absmax' is F32 [3]"));
  EXPECT_THAT(with("w.absmax", {Dtype::U8, {2}, "ab"}), HasSubstr("'w.absmax' is U8 [2]"));
  EXPECT_THAT(with("w.absmax", {Dtype::F16, {2}, "abcd"}), HasSubstr("'w.absmax' is F16 [2]"));
  EXPECT_THAT(with("w.quant_map", {Dtype::F32, {15}, sixteen.substr(4)}), HasSubstr("asks for 16 elements of F32"));
  EXPECT_THAT(with("w.quant_map", {Dtype::F16, {32}, sixteen}), HasSubstr("'w.quant_map' is F16 [32]"));
  EXPECT_THAT(nested("w.absmax", {Dtype::F32, {2}, packed(0.0)}), HasSubstr("asks for 2 elements of U8"));
  EXPECT_THAT(nested("w.absmax", {Dtype::U8, {1}, "a"}), HasSubstr("'w.absmax' is U8 [1]"));
  EXPECT_THAT(nested("w.nested_absmax", {Dtype::F32, {0}, ""}), HasSubstr("'w.nested_absmax' is F32 [0]"));
  EXPECT_THAT(nested("w.nested_absmax", {Dtype::F64, {1}, packed(1.0)}), HasSubstr("'w.nested_absmax' is F64 [1]"));
  EXPECT_THAT(nested("w.nested_quant_map", {Dtype::F32, {16}, sixteen}), HasSubstr("asks for 256 elements of F32"));
}

TEST(FourBit, RefusesABadState) {
  const auto why = [](const std::string& json) { return SmallWeight().set_state(json).refused(); };
  const auto state = [](const std::string& block, const std::string& shape) {
    return R"({"quant_type": "nf4", "blocksize": )" + block + R"(, "shape": )" + shape + "}";
  };
  EXPECT_THAT(why(state("64", "[2, 33]")), IsEmpty());
  EXPECT_THAT(why("{"), HasSubstr("'w.quant_state.bitsandbytes__nf4': not valid JSON"));
  EXPECT_THAT(why(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(why("{\"quant_type\": \"\xff\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(why("{\"quant_type\": \"nf4\", \"quant_type\": \"nf4\"}"), HasSubstr("stands twice"));
  EXPECT_THAT(why("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(why("{}"), HasSubstr("says quant_type nothing"));
  EXPECT_THAT(why(R"({"quant_type": "fp4"})"), HasSubstr("says quant_type \"fp4\""));
  EXPECT_THAT(why(R"({"quant_type": 4})"), HasSubstr("says quant_type 4"));
  EXPECT_THAT(why(R"({"quant_type": "nf4"})"), HasSubstr("has no shape"));
  EXPECT_THAT(why(R"({"quant_type": "nf4", "shape": [2, 33]})"), HasSubstr("has no blocksize"));
  for (const char* shape : {"null", "[]", "66", "{\"a\": 66}", "[2, 0]", "[2, -33]", "[-2, -33]", "[2, 33.0]",
                            "[\"2\"]", "[[2, 33]]", "[2, 18446744073709551615]"})
    EXPECT_THAT(why(state("64", shape)), HasSubstr("a list of sizes above 0 is meant")) << shape;
  EXPECT_THAT(why(state("64", "[4294967296, 4294967296]")), HasSubstr("overflows"));
  EXPECT_THAT(why(state("64", "[9223372036854775807]")), HasSubstr("asks for a column of 4611686018427387904 bytes"));
  for (const char* block : {"null", "0", "-64", "1", "31", "8192", "64.0", "1e99", "18446744073709551615", "\"64\""})
    EXPECT_THAT(why(state(block, "[2, 33]")), HasSubstr("a whole number from 32 to 4096 is meant")) << block;
  EXPECT_THAT(why(state("96", "[2, 33]")), HasSubstr("not a power of 2"));
  const std::string name = "w.quant_state.bitsandbytes__nf4";
  EXPECT_THAT(SmallWeight().set(name, {Dtype::I8, {2}, "{}"}).refused(), HasSubstr("is I8 [2], not the bytes"));
  const std::string large(70'000, ' ');
  EXPECT_THAT(why(large), HasSubstr("not the bytes of a short JSON text"));
}

TEST(FourBit, RefusesABadNestedState) {
  const auto why = [](const char* block, const char* dtype, const char* offset) {
    return SmallWeight::nested().set_state(SmallWeight::nested_state(block, dtype, offset)).refused();
  };
  const char* float32 = "\"float32\"";
  EXPECT_THAT(why("256", float32, "-1"), IsEmpty());
  EXPECT_THAT(why("9223372036854775807", float32, "0"), IsEmpty());
  for (const char* block : {"0", "-256", "null", "256.5", "18446744073709551615"})
    EXPECT_THAT(why(block, float32, "0.5"), HasSubstr("says nested_blocksize " + std::string(block).substr(0, 1)));
  EXPECT_THAT(why("256", "\"float16\"", "0.5"), HasSubstr("says nested_dtype \"float16\"; float32 is read"));
  EXPECT_THAT(why("256", "null", "0.5"), HasSubstr("says nested_dtype null"));
  for (const char* offset : {"null", "\"0\"", "1e39", "-1e39", "[0]"})
    EXPECT_THAT(why("256", float32, offset), HasSubstr("a float32 number is meant")) << offset;
  EXPECT_THAT(why("256", float32, "NaN"), HasSubstr("not valid JSON"));
  const auto plain = R"({"quant_type": "nf4", "blocksize": 64, "shape": [2, 33]})";
  EXPECT_THAT(SmallWeight::nested().set_state(plain).refused(), HasSubstr("has no nested_blocksize"));
}

TEST(FourBit, RefusesOtherKinds) {
  const std::string state = R"({"quant_type": "int4", "blocksize": 64, "shape": [2, 33]})";
  EXPECT_THAT(SmallWeight().set_state(state, "int4").refused(), HasSubstr("'w' is kept in 'int4'"));
  EXPECT_THAT(SmallWeight().set_state(state, "").refused(), HasSubstr("'w' is kept in ''"));
  SmallWeight two;
  two.parts["w.quant_state.bitsandbytes__fp4"] = two.parts["w.quant_state.bitsandbytes__nf4"];
  EXPECT_THAT(two.refused(), HasSubstr("'w' has two kinds of quant_state, fp4 and nf4"));
}

TEST(FourBit, AnIndexMayPartThePartsAndMustNameThem) {
  const TemporaryDirectory directory;
  for (const auto& file : fs::directory_iterator(kFourBit / "sharded"))
    fs::copy_file(file.path(), directory.path() / file.path().filename());
  const fs::path path = directory.path() / "model.safetensors.index.json";
  Json index = read_json(path);
  const std::string part = "model.layers.0.self_attn.o_proj.weight.quant_map";
  index["weight_map"].erase(part);
  write_text(path, index.dump());
  EXPECT_THAT(refusal([&] { WeightDirectory::open(directory.path()); }),
              HasSubstr(directory.path().string() +
                        ": 'model.layers.0.self_attn.o_proj.weight' is kept in 4 bits, but "
                        "there is no '" +
                        part));
}

}  // namespace
}  // namespace dsengine
