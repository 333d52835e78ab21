#include "files/safetensors.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cstdlib>
#include <random>

#include "files_support.h"

namespace dsengine {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string file_of(const std::string& header, size_t data_bytes) {
  return packed<uint64_t>(header.size()) + header + std::string(data_bytes, '\x01');
}

SafetensorsHeader parse(const std::string& file) {
  return parse_safetensors_header(bytes_of(file), file.size(), "w.safetensors");
}

std::string why(const std::string& file) {
  return refusal([&] { parse(file); });
}

// The header of one tensor named "a".
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

TEST(SafetensorsHeader, ReadsTensorsInTheOrderOfTheirBytes) {
  const auto header = parse(file_of(R"({"b":{"dtype":"F16","shape":[2,3],"data_offsets":[8,20]},
      "__metadata__":{"format":"pt","k":"v"},"e":{"dtype":"I64","shape":[0,5],"data_offsets":[8,8]},
      "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"s":{"dtype":"BOOL","shape":[],"data_offsets":[20,21]}}   )",
                                    21));
  ASSERT_EQ(header.entries.size(), 4u);
  EXPECT_EQ(header.entries[0].name, "a");
  EXPECT_EQ(header.entries[1].name, "e");
  EXPECT_EQ(header.entries[1].elements(), 0u);
  EXPECT_EQ(header.entries[2].name, "b");
  EXPECT_EQ(header.entries[2].dtype, Dtype::F16);
  EXPECT_EQ(header.entries[2].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(header.entries[2].row_elements(), 3u);
  EXPECT_EQ(header.entries[3].elements(), 1u);
  EXPECT_EQ(header.metadata.at("k"), "v");
  EXPECT_TRUE(parse(file_of("{}", 0)).entries.empty());
}

TEST(SafetensorsHeader, RefusesEachFaultWithItsOwnLine) {
  const struct {
    std::string file;
    const char* what;
  } cases[] = {
      {"", "too few"},
      {"1234567", "too few"},
      {packed<uint64_t>(100'000'001) + "{}", "at most 100000000"},
      {packed<uint64_t>(~uint64_t{0}) + "{}", "at most"},
      {packed<uint64_t>(3) + "{}", "passes the end of the file"},
      {file_of("", 0), "does not start with '{'"},
      {file_of(" {}", 0), "does not start with '{'"},
      {file_of("[]", 0), "does not start with '{'"},
      {file_of("{\"a\":", 0), "not valid JSON"},
      {file_of("{} x", 0), "not valid JSON"},
      {file_of("{\"\xff\":1}", 0), "not valid JSON"},
      {file_of("{\"a\":1}", 0), "is not an object"},
      {file_of(R"({"a":{"shape":[],"data_offsets":[0,0]}})", 0), "no dtype"},
      {file_of(R"({"a":{"dtype":"F32","data_offsets":[0,0]}})", 0), "no shape"},
      {file_of(R"({"a":{"dtype":"F32","shape":[]}})", 4), "no data_offsets"},
      {file_of(R"({"a":{"dtype":5,"shape":[],"data_offsets":[0,4]}})", 4), "dtype is not a text"},
      {file_of(one("F31", "[1]", "[0,4]"), 4), "unknown dtype 'F31'"},
      {file_of(one("F32", "1", "[0,4]"), 4), "shape is not a list"},
      {file_of(one("F32", "[-1]", "[0,4]"), 4), "not a size"},
      {file_of(one("F32", "[1.0]", "[0,4]"), 4), "not a size"},
      {file_of(one("F32", "[9223372036854775808]", "[0,4]"), 4), "not a size"},
      {file_of(one("F32", "[1]", "[0,4,8]"), 4), "not two offsets"},
      {file_of(one("F32", "[1]", "[-4,0]"), 4), "not two offsets"},
      {file_of(one("F32", "[1]", "{}"), 4), "not two offsets"},
      {file_of(one("F32", "[2]", "[0,4]"), 4), "do not hold the 8 bytes"},
      {file_of(one("F32", "[1]", "[4,0]"), 4), "do not hold the 4 bytes"},
      {file_of(one("F32", "[4294967296,4294967296]", "[0,0]"), 0), "overflows"},
      {file_of(one("F32", "[4294967296,4294967296,0]", "[0,0]"), 0), "overflows"},
      {file_of(one("F64", "[4611686018427387904]", "[0,0]"), 0), "overflows"},
      {file_of(one("U8", "[4]", "[2,6]"), 6), "starts at 2, but the tensors before it end at 0"},
      {file_of(one("U8", "[4]", "[0,4]"), 3), "take 4 bytes, but the file holds 3"},
      {file_of(one("U8", "[4]", "[0,4]"), 5), "take 4 bytes, but the file holds 5"},
      {file_of("{}", 1), "take 0 bytes, but the file holds 1"},
      {file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},
                   "b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}})",
               5),
       "starts at 3"},
      {file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},
                   "b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
               3),
       "starts at 1"},
      {file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},
                   "a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
               2),
       "key 'a' stands twice"},
      {file_of(R"({"a":{"dtype":"U8","dtype":"I8","shape":[2],"data_offsets":[0,2]}})", 2), "key 'dtype' stands twice"},
      {file_of(R"({"__metadata__":{"a":"1","a":"2"}})", 0), "key 'a' stands twice"},
      {file_of(R"({"__metadata__":{"a":1}})", 0), "is not a text"},
      {file_of(R"({"__metadata__":[]})", 0), "__metadata__ is not an object"},
      {file_of("{\"a\":" + std::string(100, '['), 0), "nested deeper"},
  };
  for (const auto& fault : cases) {
    const std::string text = why(fault.file);
    EXPECT_THAT(text, StartsWith("w.safetensors: ")) << fault.file;
    EXPECT_THAT(text, HasSubstr(fault.what)) << fault.file;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  }
}

// Whatever is done to a good file, the answer is entries within the file or a UserError.
TEST(SafetensorsHeader, DamagedHeadersNeverPassTheFile) {
  const std::string good = file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
      "b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},"__metadata__":{"format":"pt"}})",
                                   20);
  std::mt19937 random(1);
  int refused = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string file = good;
    for (size_t n = 1 + random() % 3; n > 0; --n) file[random() % file.size()] = static_cast<char>(random());
    if (random() % 4 == 0) file.resize(random() % file.size());
    const std::string text = refusal([&] {
      const auto header = parse(file);
      for (const auto& entry : header.entries) ASSERT_LE(header.data_begin + entry.end, file.size());
    });
    refused += !text.empty();
  }
  EXPECT_GT(refused, 10000);
}

TEST(SafetensorsFile, ReadsWhatPythonWrote) {
  const SafetensorsFile file(kBins / "python.safetensors");
  EXPECT_EQ(file.metadata().at("made by"), "safetensors");
  const auto expected = expected_tensors("state_dict");
  EXPECT_EQ(file.entries().size(), expected.size());
  for (const auto& tensor : expected) {
    const TensorEntry* entry = file.find(tensor.name);
    ASSERT_NE(entry, nullptr) << tensor.name;
    EXPECT_EQ(entry->shape, tensor.shape) << tensor.name;
    if (!is_float(entry->dtype)) continue;
    std::vector<float> values(entry->elements());
    file.read_f32(*entry, 0, values);
    EXPECT_EQ(values, tensor.values) << tensor.name;
  }
  EXPECT_EQ(file.find("positions")->dtype, Dtype::I64);
  EXPECT_EQ(file.bytes(*file.find("positions"))[8], std::byte{1});
  EXPECT_EQ(file.find("nothing"), nullptr);
}

TEST(SafetensorsFile, MovesWithItsMapping) {
  SafetensorsFile first(kBins / "python.safetensors");
  const SafetensorsFile file = std::move(first);
  EXPECT_EQ(file.bytes(*file.find("mask"))[0], std::byte{1});
}

TEST(SafetensorsFile, RefusesWhatIsNoFile) {
  TemporaryDirectory directory;
  EXPECT_THAT(refusal([&] { SafetensorsFile(directory.path() / "absent"); }), HasSubstr("No such file"));
  EXPECT_THAT(refusal([&] { SafetensorsFile{directory.path()}; }), HasSubstr("not a regular file"));
  write_text(directory.path() / "empty", "");
  EXPECT_THAT(refusal([&] { SafetensorsFile(directory.path() / "empty"); }), HasSubstr("too few"));
}

TEST(SafetensorsWriter, WritesTheBytesOfTheFormat) {
  TemporaryDirectory directory;
  const auto path = directory.path() / "w.safetensors";
  SafetensorsWriter writer(path, {{"none", Dtype::F32, {0}}, {"b", Dtype::U8, {3}}, {"a", Dtype::I16, {1, 1}}});
  writer.write("b", bytes_of("xy"));
  writer.write("b", bytes_of("z"));
  writer.write("a", bytes_of("AB"));
  writer.close();
  // Written out by hand from the format's description; the header is padded to a multiple of 8.
  std::string header = R"({"__metadata__":{"format":"pt"},"none":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},)"
                       R"("b":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                       R"("a":{"dtype":"I16","shape":[1,1],"data_offsets":[3,5]}})";
  while (header.size() % 8) header += ' ';
  EXPECT_EQ(read_text(path), packed<uint64_t>(header.size()) + header + "xyzAB");
}

TEST(SafetensorsWriter, PythonReadsItsFile) {
  if (!std::filesystem::exists(kPython)) GTEST_SKIP() << "NOT TESTED: no Python at " << kPython;
  TemporaryDirectory directory;
  const auto path = directory.path() / "w.safetensors";
  SafetensorsWriter writer(path, {{"z \"é\"", Dtype::F32, {2, 1}}, {"a", Dtype::BF16, {}}}, {{"k", "v\n"}});
  writer.write("z \"é\"", bytes_of(packed(1.5f) + packed(-2.0f)));
  writer.write("a", bytes_of(packed<uint16_t>(0x3fc0)));
  writer.close();
  write_text(directory.path() / "check.py", R"(
import sys, struct, safetensors
tensors = dict(safetensors.deserialize(open(sys.argv[1], "rb").read()))
z, a = tensors['z "é"'], tensors["a"]
assert z["dtype"] == "F32" and z["shape"] == [2, 1] and struct.unpack("<2f", bytes(z["data"])) == (1.5, -2.0), z
assert a["dtype"] == "BF16" and a["shape"] == [] and bytes(a["data"]) == b"\xc0\x3f", a
with safetensors.safe_open(sys.argv[1], "np") as f:
    assert f.metadata() == {"k": "v\n"}, f.metadata()
)");
  const auto command =
      fmt::format("'{}' '{}' '{}'", kPython.string(), (directory.path() / "check.py").string(), path.string());
  EXPECT_EQ(std::system(command.c_str()), 0);
}

TEST(SafetensorsWriter, MisuseIsOurOwnFault) {
  TemporaryDirectory directory;
  const auto path = directory.path() / "w.safetensors";
  SafetensorsWriter writer(path, {{"a", Dtype::U8, {2}}, {"b", Dtype::U8, {2}}});
  EXPECT_THROW(writer.write("b", bytes_of("xy")), InternalError);
  EXPECT_THROW(writer.write("a", bytes_of("xyz")), InternalError);
  writer.write("a", bytes_of("xy"));
  EXPECT_THROW(writer.close(), InternalError);
  EXPECT_THROW(SafetensorsWriter(directory.path() / "c", {{"a", Dtype::U8, {2}}, {"a", Dtype::U8, {2}}}),
               InternalError);
  EXPECT_THAT(refusal([&] {
                SafetensorsWriter(directory.path() / "c", {{"\xff", Dtype::U8, {2}}});
              }),
              HasSubstr("not UTF-8"));
  EXPECT_FALSE(std::filesystem::exists(directory.path() / "c"));
}

TEST(SafetensorsWriter, AFileThatWasNotClosedIsRemoved) {
  TemporaryDirectory directory;
  const auto path = directory.path() / "w.safetensors";
  { SafetensorsWriter writer(path, {{"a", Dtype::U8, {2}}}); }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(SafetensorsWriter, AFullDiskIsOneLineNamingThePath) {
  TemporaryDirectory directory;
  const auto path = directory.path() / "w.safetensors";
  // The kernel's device that is always full, by a link, so that removing the file removes the link.
  std::filesystem::create_symlink("/dev/full", path);
  EXPECT_EQ(refusal([&] {
              SafetensorsWriter(path, {{"a", Dtype::U8, {2}}});
            }),
            fmt::format("cannot write {}: No space left on device", path.string()));
  EXPECT_THAT(refusal([&] { SafetensorsWriter(directory.path() / "no" / "w", {}); }), HasSubstr("No such file"));
}

// A disk that fills up half way, played by a limit on file sizes in a child process.
TEST(SafetensorsWriter, ADiskThatFillsUpLeavesNothing) {
  TemporaryDirectory directory;
  const auto path = directory.path() / "w.safetensors";
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{50000, 50000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string text = refusal([&] {
      SafetensorsWriter writer(path, {{"a", Dtype::U8, {100000}}});
      writer.write("a", bytes_of(std::string(100000, 'x')));
      writer.close();
    });
    ::_exit(text == fmt::format("cannot write {}: File too large", path.string()) ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace dsengine
