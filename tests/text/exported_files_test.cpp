// What of a directory goes along with a saved model: what was read as what its name says, not what links lead to.
#include "text/tokenizer_files.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "base/json.h"
#include "run/scratch_folder.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ExportedFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_ / "model");
    write_text(folder_ / "secret", "user password\n-----BEGIN PRIVATE KEY-----\n");
    write_text(folder_ / "secret.json", R"({"auths": {"registry": {"auth": "top"}}})");
  }

  void put(const char* name, const std::string& text) { write_text(folder_ / "model" / name, text); }
  void link(const char* name, const char* to) { fs::create_symlink(folder_ / to, folder_ / "model" / name); }
  std::vector<std::string> names() {
    left_out_.clear();
    std::vector<std::string> result;
    for (const auto& file : tokenizer_files(folder_ / "model", left_out_)) result.push_back(file.name.string());
    return result;
  }

  ScratchFolder scratch_;
  const fs::path folder_ = scratch_.path;
  std::vector<std::string> left_out_;
};

TEST_F(ExportedFilesTest, WhatIsWhatItsNameSays) {
  put("tokenizer.json", R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})");
  put("tokenizer_config.json", R"({"eos_token": "</s>"})");
  put("special_tokens_map.json", "{}");
  put("added_tokens.json", R"({"<x>": 5})");
  put("vocab.json", R"({"a": 0, "b": 1, "ab": 2})");
  put("merges.txt", "#version: 0.2\r\na b\n");
  put("chat_template.jinja", "{% for m in messages %}{{ m.content }}{% endfor %}");
  fs::create_directories(folder_ / "model/additional_chat_templates");
  put("additional_chat_templates/rag.jinja", "{{ documents }}");
  EXPECT_THAT(names(),
              ElementsAre("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                          "vocab.json", "merges.txt", "chat_template.jinja", "additional_chat_templates/rag.jinja"));
  EXPECT_THAT(left_out_, ElementsAre());
}

TEST_F(ExportedFilesTest, LinksAreReadThrough) {  // Hugging Face's cache: snapshots/…/tokenizer_config.json → blobs/…
  write_text(folder_ / "blob", R"({"eos_token": "</s>"})");
  link("tokenizer_config.json", "blob");
  EXPECT_THAT(names(), ElementsAre("tokenizer_config.json"));
}

TEST_F(ExportedFilesTest, SecretsStay) {
  put("vocab.json", R"({"a": 0})");
  link("merges.txt", "secret");
  link("tokenizer.model", "secret");
  link("chat_template.jinja", "secret");
  link("tokenizer.json", "secret.json");
  link("tokenizer_config.json", "secret.json");
  link("special_tokens_map.json", "secret.json");
  link("added_tokens.json", "secret.json");
  fs::create_directories(folder_ / "model/additional_chat_templates");
  link("additional_chat_templates/x.jinja", "secret");
  EXPECT_THAT(names(), ElementsAre("vocab.json"));
  EXPECT_EQ(left_out_.size(), 8);
  for (const auto& line : left_out_) EXPECT_THAT(line, Not(HasSubstr("password")));
}

TEST_F(ExportedFilesTest, WhatCannotBeReadIsLeftOut) {
  link("tokenizer.model", "nowhere");
  put("merges.txt", "a b\n");  // without its vocab.json
  EXPECT_THAT(names(), ElementsAre());
  EXPECT_EQ(left_out_.size(), 2);
}

}  // namespace
}  // namespace dsengine
