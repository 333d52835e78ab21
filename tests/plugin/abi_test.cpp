// The frozen layout: sdk/abi_v1.txt against what the header compiles to.
#include <gtest/gtest.h>

#include <cstddef>
#include <map>
#include <sstream>
#include <string>
#include <utility>

#include "base/json.h"
#include "dsengine/abi.h"

namespace dsengine {
namespace {

struct Field {
  size_t offset, size;
  bool operator==(const Field&) const = default;
};

// "dse_host fail" → where it is.
std::map<std::string, Field> compiled_fields() {
  return {
#define DSE_FIELD(type, field) {#type " " #field, {offsetof(type, field), sizeof(type::field)}},
#include "abi/fields_v1.inc"
#undef DSE_FIELD
  };
}

std::map<std::string, size_t> compiled_sizes() {
  return {
#define DSE_FIELD(type, field) {#type, sizeof(type)},
#include "abi/fields_v1.inc"
#undef DSE_FIELD
  };
}

std::map<std::string, Field> frozen_fields() {
  std::map<std::string, Field> fields;
  std::istringstream text(read_text(std::string(DSE_SOURCE_DIR) + "/sdk/abi_v1.txt"));
  for (std::string line; std::getline(text, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    std::string type, name;
    Field field{};
    words >> type >> name >> field.offset >> field.size;
    EXPECT_TRUE(words && fields.emplace(type + " " + name, field).second) << line;
  }
  return fields;
}

TEST(Abi, FrozenFieldsStandWhereV1PutThem) {
  const auto compiled = compiled_fields(), frozen = frozen_fields();
  EXPECT_EQ(compiled.size(), frozen.size());
  for (const auto& [name, field] : frozen) {
    ASSERT_TRUE(compiled.contains(name)) << name;
    EXPECT_EQ(compiled.at(name).offset, field.offset) << name;
    EXPECT_EQ(compiled.at(name).size, field.size) << name;
  }
}

// Fields that the list forgot would be free to move.
TEST(Abi, TheListLeavesNothingOut) {
  std::map<std::string, std::map<size_t, size_t>> ends;  // struct → offset → size
  for (const auto& [name, field] : frozen_fields()) ends[name.substr(0, name.find(' '))][field.offset] = field.size;
  EXPECT_EQ(ends.size(), 13u);
  for (const auto& [type, size] : compiled_sizes()) {
    size_t end = 0;
    for (const auto& [offset, bytes] : ends[type]) {
      EXPECT_EQ(offset, end) << type << ": a hole or padding before offset " << offset;
      end = offset + bytes;
    }
    EXPECT_EQ(end, size) << type;
  }
}

TEST(Abi, EnumValuesAreFrozen) {
  EXPECT_EQ(DSE_ABI_MAJOR, 1u);
  EXPECT_EQ((std::pair<int, int>{DSE_OPTION_BOOLEAN, DSE_OPTION_STRING}), (std::pair{1, 4}));
  EXPECT_EQ((std::pair<int, int>{DSE_ACTOR, DSE_REWARD}), (std::pair{1, 8}));
  EXPECT_EQ((std::pair<int, int>{DSE_SOURCE_ROLLOUT, DSE_SOURCE_PAIRS}), (std::pair{0, 2}));
  EXPECT_EQ((std::pair<int, int>{DSE_FORM_TOKEN, DSE_FORM_RAW}), (std::pair{0, 3}));
  EXPECT_EQ((std::pair<int, int>{DSE_NORM_TOKENS, DSE_NORM_CONSTANT}), (std::pair{0, 3}));
  EXPECT_EQ((std::pair<int, int>{DSE_COLUMN_LOGP, DSE_COLUMN_SCORE}), (std::pair{1, 64}));
  EXPECT_EQ(int{DSE_COLUMN_ROLLOUT_LOGP}, 128);
  EXPECT_EQ((std::pair<int, int>{DSE_FINISH_EOS, DSE_FINISH_RECORD}), (std::pair{0, 3}));
  EXPECT_EQ((std::pair<int, int>{DSE_RECORD_TEXT, DSE_RECORD_PAIR}), (std::pair{1, 5}));
  EXPECT_EQ((std::pair<int, int>{DSE_ALGORITHM, DSE_KERNEL}), (std::pair{1, 5}));
}

}  // namespace
}  // namespace dsengine
