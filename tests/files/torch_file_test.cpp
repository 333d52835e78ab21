#include "files/torch_file.h"

#include <gmock/gmock.h>

#include <random>

#include "files/pickle.h"
#include "files/zip.h"
#include "files_support.h"

namespace dsengine {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

void expect_same(const WeightSource& file, const std::string& group) {
  const auto expected = expected_tensors(group);
  EXPECT_EQ(file.entries().size(), expected.size());
  for (const auto& tensor : expected) {
    const TensorEntry* entry = file.find(tensor.name);
    ASSERT_NE(entry, nullptr) << tensor.name;
    EXPECT_EQ(entry->shape, tensor.shape) << tensor.name;
    if (!is_float(entry->dtype)) continue;
    std::vector<float> values(entry->elements());
    file.read_f32(*entry, 0, values);
    EXPECT_EQ(values, tensor.values) << tensor.name;
    for (uint64_t first = 0; first < values.size(); ++first) {  // any part is that part of the whole
      std::vector<float> part(std::min<uint64_t>(2, values.size() - first));
      file.read_f32(*entry, first, part);
      EXPECT_TRUE(std::equal(part.begin(), part.end(), values.begin() + static_cast<ptrdiff_t>(first))) << tensor.name;
    }
  }
}

TEST(TorchFile, ReadsEveryKindOfStorageAsTorchDoes) {
  const TorchFile file(kBins / "state_dict.bin");
  expect_same(file, "state_dict");
  EXPECT_EQ(file.find("half")->dtype, Dtype::F16);
  EXPECT_EQ(file.find("bfloat")->dtype, Dtype::BF16);
  EXPECT_EQ(file.find("double")->dtype, Dtype::F64);
  EXPECT_EQ(file.find("positions")->dtype, Dtype::I64);
  EXPECT_EQ(file.find("offset")->begin, 5 * sizeof(float));
}

TEST(TorchFile, ReadsTheStateOfAModule) { expect_same(TorchFile(kBins / "module.bin"), "module"); }

TEST(TorchFile, GathersTransposedTensorsOfManyElements) {
  const TorchFile file(kBins / "transposed.bin");
  const TensorEntry* entry = file.find("w");
  ASSERT_EQ(entry->shape, (std::vector<int64_t>{64, 66}));
  std::vector<float> values(entry->elements());
  file.read_f32(*entry, 0, values);
  for (size_t row = 0; row < 64; ++row) {
    for (size_t column = 0; column < 66; ++column) {
      ASSERT_EQ(values[row * 66 + column], static_cast<float>((column * 64 + row) % 1000));
    }
  }
}

TEST(TorchFile, NamesTheFunctionThatItRefusesToCall) {
  for (const char* name : {"malicious2.bin", "malicious4.bin"}) {
    const auto path = kBins / name;
    EXPECT_EQ(refusal([&] { TorchFile{path}; }),
              path.string() + ": refused: the pickle refers to 'posix.system', which is no part of a tensor");
  }
}

TEST(TorchFile, RefusesOtherFiles) {
  EXPECT_THAT(refusal([] { TorchFile(kBins / "legacy.bin"); }), HasSubstr("save it again"));
  TemporaryDirectory directory;
  const auto path = directory.path() / "w.bin";
  const std::string good = read_text(kBins / "state_dict.bin");
  write_text(path, good.substr(0, good.size() / 2));
  EXPECT_THAT(refusal([&] { TorchFile{path}; }), HasSubstr("cut short"));
}

// Whatever bytes are changed, the answer is tensors that can be read or a UserError.
TEST(TorchFile, DamagedFilesNeverPassTheirBounds) {
  TemporaryDirectory directory;
  const auto path = directory.path() / "w.bin";
  const std::string good = read_text(kBins / "state_dict.bin");
  std::mt19937 random(2);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = good;
    for (size_t n = 1 + random() % 4; n > 0; --n) bytes[random() % bytes.size()] = static_cast<char>(random());
    std::filesystem::remove(path);  // some file systems wait for the disk when a file is overwritten
    write_text(path, bytes);
    const std::string text = refusal([&] {
      const TorchFile file(path);
      for (const auto& entry : file.entries()) {
        if (!is_float(entry.dtype) || entry.elements() > 1000) continue;
        std::vector<float> values(entry.elements());
        file.read_f32(entry, 0, values);
      }
    });
    refused += !text.empty();
  }
  EXPECT_GT(refused, 300);
}

// Pickles by hand, protocol 2. A storage "0" of eight floats, then what is asked of it.
using namespace std::string_literals;

std::string text_of(const std::string& text) { return "X"s + packed(static_cast<uint32_t>(text.size())) + text; }
std::string pickled(const std::string& value) { return "\x80\x02}"s + text_of("w") + value + "s."; }
std::string integer(int32_t value) { return "J"s + packed(value); }
std::string storage(const std::string& type, int32_t elements) {
  return "("s + text_of("storage") + "c" + type + "\n" + text_of("0") + text_of("cpu") + integer(elements) + "tQ";
}
std::string tensor(const std::string& storage, int32_t offset, const std::string& shape, const std::string& strides) {
  return "ctorch._utils\n_rebuild_tensor_v2\n("s + storage + integer(offset) + shape + strides +
         "\x89"
         "ccollections\nOrderedDict\n)RtR";
}
std::string pair(int32_t a, int32_t b) { return integer(a) + integer(b) + "\x86"; }

const std::string kFloats = storage("torch\nFloatStorage", 8);

std::string why(const std::string& pickle) {
  return refusal([&] { parse_tensor_pickle(bytes_of(pickle), "w.bin"); });
}

TEST(Pickle, ReadsATensorByHand) {
  const auto tensors = parse_tensor_pickle(bytes_of(pickled(tensor(kFloats, 2, pair(2, 3), pair(1, 2)))), "w.bin");
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_EQ(tensors[0].name, "w");
  EXPECT_EQ(tensors[0].storage, "0");
  EXPECT_EQ(tensors[0].offset, 2u);
  EXPECT_EQ(tensors[0].strides, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(tensors[0].end(), 8u);
}

TEST(Pickle, RefusesEachFault) {
  const std::string good = pickled(tensor(kFloats, 0, pair(2, 2), pair(2, 1)));
  ASSERT_EQ(why(good), "");
  const struct {
    std::string pickle;
    const char* what;
  } cases[] = {
      {"", "cut short"},
      {good.substr(0, good.size() - 1), "cut short"},
      {"\x80\x09.", "unknown pickle protocol"},
      {std::string("\x80\x02.", 3), "takes more values"},
      {pickled(tensor(kFloats, 3, pair(2, 3), pair(3, 1))), "passes its storage of 8 elements"},
      {pickled(tensor(kFloats, 0, pair(2, 3), pair(6, 1))), "passes its storage"},
      {pickled(tensor(kFloats, 9, pair(1, 1), pair(1, 1))), "passes its storage"},
      {pickled(tensor(kFloats, -1, pair(1, 1), pair(1, 1))), "malformed tensor"},
      {pickled(tensor(kFloats, 0, pair(-1, 1), pair(1, 1))), "malformed tensor"},
      {pickled(tensor(kFloats, 0, pair(1, 1), pair(-1, 1))), "malformed tensor"},
      {pickled(tensor(kFloats, 0, pair(1, 1), integer(1) + "\x85")), "2 sizes and 1 strides"},
      {pickled(tensor(storage("torch\nFloatStorage", -1), 0, pair(1, 1), pair(1, 1))), "malformed storage"},
      {pickled(tensor(text_of("s"), 0, pair(1, 1), pair(1, 1))), "malformed tensor"},
      {pickled(tensor(storage("torch\nEvilStorage", 8), 0, pair(1, 1), pair(1, 1))), "'torch.EvilStorage'"},
      {pickled("cbuiltins\neval\n("s + text_of("1") + "tR"), "'builtins.eval'"},
      {pickled("("s + text_of("x") + "ios\nsystem\n"), "instruction 0x69"},
      {pickled("ccollections\nOrderedDict\n)\x81"), "instruction 0x81"},
      {pickled("ccollections\nOrderedDict\n(K\x01tR"), "OrderedDict made from arguments"},
      {pickled("ctorch._utils\n_rebuild_parameter\n(NtR"), "parameter made from no tensor"},
      {pickled("K\x01"), "'w' in the state dict is no tensor"},
      {pickled("h\x07"), "did not keep"},
      {pickled("Nt"), "closes a group"},
      {pickled("NNb"), "no dictionary"},
      {pickled("N(}u"), "wrong container"},
      {pickled(")R"), "no function"},
      {"\x80\x02}K\x01Ns.", "key that is no text"},
      {"\x80\x02N.", "holds no state dict"},
      {pickled("\x8a\xff"s + std::string(255, 'x')), "integer of 255 bytes"},
  };
  for (const auto& fault : cases) {
    EXPECT_THAT(why(fault.pickle), StartsWith("w.bin: ")) << fault.what;
    EXPECT_THAT(why(fault.pickle), HasSubstr(fault.what));
  }
  // Each of a byte or two, of which a value takes a few hundred bytes.
  const std::string many(3 << 20, 'N');
  EXPECT_THAT(why(pickled(many)), HasSubstr("makes more than"));
  std::string recalled = "Nq\x01"s, kept = "N";
  for (int i = 0; i < 3 << 20; ++i) recalled += "h\x01", kept += '\x94';
  EXPECT_THAT(why(pickled(recalled)), HasSubstr("stacks more than"));
  EXPECT_THAT(why(pickled(kept)), HasSubstr("keeps more than"));
  // Index arithmetic beyond 63 bits: (2^32)^2 elements, and a stride of 2^62 taken three times.
  const std::string huge = "\x8a\x05"s + std::string(4, '\0') + "\x01";
  const std::string stride = "\x8a\x08"s + std::string(7, '\0') + "\x40";
  EXPECT_THAT(why(pickled(tensor(kFloats, 0, huge + huge + "\x86", pair(0, 0)))), HasSubstr("passes its storage"));
  EXPECT_THAT(why(pickled(tensor(kFloats, 0, integer(4) + "\x85", stride + "\x85"))), HasSubstr("passes its storage"));
}

// A zip archive by hand, with the sizes and the offset of its member in zip64 fields.
std::string zip64_archive(const std::string& name, const std::string& data, uint16_t method = 0) {
  const auto u16 = [](size_t n) { return packed(static_cast<uint16_t>(n)); };
  const auto u32 = [](size_t n) { return packed(static_cast<uint32_t>(n)); };
  const auto u64 = [](size_t n) { return packed(static_cast<uint64_t>(n)); };
  const std::string none32 = "\xff\xff\xff\xff", padding = "FB"s + u16(3) + "ZZZ";
  std::string file = "PK\x03\x04"s + u16(45) + u16(0) + u16(method) + u32(0) + u32(0) + none32 + none32 +
                     u16(name.size()) + u16(padding.size()) + name + padding + data;
  const size_t directory = file.size();
  const std::string extra = padding + u16(1) + u16(24) + u64(data.size()) + u64(data.size()) + u64(0);
  file += "PK\x01\x02"s + u16(45) + u16(45) + u16(0) + u16(method) + u32(0) + u32(0) + none32 + none32 +
          u16(name.size()) + u16(extra.size()) + u16(0) + u16(0) + u16(0) + u32(0) + none32 + name + extra;
  const size_t end64 = file.size();
  file += "PK\x06\x06"s + u64(44) + u16(45) + u16(45) + u32(0) + u32(0) + u64(1) + u64(1) + u64(end64 - directory) +
          u64(directory);
  file += "PK\x06\x07"s + u32(0) + u64(end64) + u32(1);
  return file + "PK\x05\x06" + u16(0) + u16(0) + u16(0xffff) + u16(0xffff) + none32 + none32 + u16(7) + "comment";
}

TEST(Zip, ReadsZip64) {
  const std::string file = zip64_archive("a/data.pkl", "content");
  const auto members = read_stored_zip(bytes_of(file), "w.bin");
  ASSERT_EQ(members.size(), 1u);
  const auto data = members.at("a/data.pkl");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(data.data()), data.size()), "content");
}

TEST(Zip, RefusesCompressedAndDamagedArchives) {
  const auto zip_refusal = [](const std::string& file) {
    return refusal([&] { read_stored_zip(bytes_of(file), "w.bin"); });
  };
  EXPECT_THAT(zip_refusal(zip64_archive("n", "content", 8)), HasSubstr("'n' is compressed"));
  EXPECT_THAT(zip_refusal("PK\x03\x04"), HasSubstr("damaged"));
  const std::string good = zip64_archive("n", "content");
  for (size_t size = 0; size < good.size(); ++size) EXPECT_NE(zip_refusal(good.substr(0, size)), "") << size;
}

}  // namespace
}  // namespace dsengine
