// A tokenizer's files: what is wrong in them is one clear line, and what stands in which of them counts.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>

#include "base/check.h"
#include "base/json.h"
#include "text/tokenizer.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<TokenId>;

const fs::path golden = fs::path(DSE_TEST_DIR) / "golden/tokenizers";

class WrittenTokenizer : public testing::Test {
 protected:
  WrittenTokenizer() { fs::create_directories(directory); }
  ~WrittenTokenizer() override { fs::remove_all(directory); }

  std::string error_of(const std::string& text) {
    write_text(directory / "tokenizer.json", text);
    try {
      Tokenizer::from_directory(directory);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  }
  const fs::path directory =
      fs::temp_directory_path() /
      ("dse_tokenizer_" + std::to_string(std::chrono::steady_clock::now().time_since_epoch().count()));
};

// Of a post-processor: pieces that add token 0, and processors that each add it.
std::string specials(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += R"(,{"SpecialToken":{"id":"a"}})";
  return text;
}
std::string templates(int count) {
  std::string text;
  for (int i = 0; i < count; ++i)
    text += std::string(i ? "," : "") + R"({"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}})" +
            specials(1) + R"(],"special_tokens":{"a":{"ids":[0]}}})";
  return text;
}

TEST_F(WrittenTokenizer, IsOneClearError) {
  EXPECT_FALSE(Tokenizer::exists_in(directory));
  EXPECT_THROW(Tokenizer::from_directory(directory), UserError);
  const std::string model = R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]])";
  EXPECT_EQ(error_of("{" + model + "}}"), "");
  EXPECT_TRUE(Tokenizer::exists_in(directory));
  const std::pair<std::string, const char*> cases[] = {
      {"{", "not valid JSON"},
      {"[]", "not as expected"},
      {"{}", "not as expected"},
      {R"({"model":{"type":"WordPiece","vocab":{}}})", "model of type WordPiece"},
      {R"({"model":{"type":"Unigram","vocab":[]}})", "model of type Unigram"},
      {"{" + model + R"(,"continuing_subword_prefix":"##"}})", "continuing_subword_prefix"},
      {R"({"model":{"vocab":{"a":0},"merges":["a b"]}})", "not in the vocabulary"},
      {R"({"model":{"vocab":{"a":0},"merges":["ab"]}})", "is not two tokens"},
      {R"({"model":{"vocab":{"a":-5},"merges":[]}})", "token id -5"},
      {R"({"model":{"vocab":{"a":2000000000},"merges":[]}})", "token id 2000000000"},
      {"{" + model + R"(},"normalizer":{"type":"Precompiled"}})", "normalizer of type Precompiled"},
      {"{" + model + R"(},"pre_tokenizer":{"type":"UnicodeScripts"}})", "pre_tokenizer of type UnicodeScripts"},
      {"{" + model + R"(},"decoder":{"type":"CTC"}})", "decoder of type CTC"},
      {"{" + model + R"(},"post_processor":{"type":"BertProcessing"}})", "post_processor of type BertProcessing"},
      {"{" + model + R"(},"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a"},"behavior":"Isolated"}})",
       "cannot compile pattern (a"},
      {R"({"model":{"vocab":{"a":4294967296},"merges":[]}})", "token id 4294967296"},
      {R"({"model":{"vocab":{"a":"0"},"merges":[]}})", "token id \"0\""},
      {R"({"model":{"vocab":{"a":0,"b":0},"merges":[]}})", "tokens a and b both have id 0"},
      {R"({"model":{"vocab":["a"],"merges":[]}})", "no table of tokens"},
      {R"({"model":{"vocab":{"a":0},"merges":[["a"]]}})", "not as expected"},
      {R"({"model":{"vocab":{"a":0},"merges":[],"unk_token":"b"}})", "unk_token b is not in the vocabulary"},
      {R"({"model":{"vocab":{"a":0},"merges":[],"unk_token":7}})", "not as expected"},
      {R"({"model":{"vocab":{"a":1e999},"merges":[]}})", "not valid JSON"},
      {R"({"model":"BPE"})", "not as expected"},
      {"{" + model + R"(},"added_tokens":[{"id":-1,"content":"x"}]})", "token id -1"},
      {"{" + model + R"(},"added_tokens":{"x":3}})", "not as expected"},
      {"{" + model + R"(},"normalizer":"NFC"})", "not as expected"},
      {"{" + model + R"(},"normalizer":{"type":"Sequence"}})", "not as expected"},
      {"{" + model + R"(},"pre_tokenizer":{"type":"Split","pattern":{},"behavior":"Isolated"}})", "not as expected"},
      {"{" + model + R"(},"pre_tokenizer":{"type":"Split","pattern":{"String":" "},"behavior":"Odd"}})", "Odd"},
      {"{" + model + R"(},"decoder":{"type":"Strip","content":"","start":1,"stop":0}})", "one character"},
      {"{" + model + R"(},"decoder":{"type":"Strip","content":" ","start":1e57,"stop":0}})", "start is 1e+57"},
      {"{" + model + R"(},"decoder":{"type":"Strip","content":" ","start":0,"stop":-1}})", "stop is -1"},
      {"{" + model + R"(},"added_tokens":[{"id":18446744073709551615,"content":"x"}]})", "token id 1844674407370955"},
      {"{" + model +
           R"(},"post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}},)"
           R"({"SpecialToken":{"id":"</s>"}}],"special_tokens":{}}})",
       "not as expected"},
      {"{" + model + R"(},"post_processor":{"type":"TemplateProcessing","single":[],"special_tokens":{}}})",
       "must hold one Sequence"},
      {"{" + model +
           R"(},"post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}},)"
           R"({"SpecialToken":{"id":"</s>"}}],"special_tokens":{"</s>":{"ids":[9]}}}})",
       "adds token 9, which is not in the vocabulary"},
      {"{" + model + R"(},"post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}})" +
           specials(1001) + R"(],"special_tokens":{"a":{"ids":[0]}}}})",
       "adds more than 1000 tokens"},
      {"{" + model + R"(},"post_processor":{"type":"Sequence","processors":[)" + templates(1001) + "]}}",
       "adds more than 1000 tokens"},
      {"{" + model + R"(},"added_tokens":[{"id":2,"content":"x","special":7}]})", "'special' is 7, of the wrong type"},
      {"{" + model.substr(0, 40), "not valid JSON"},
      {std::string(100000, '['), "nested deeper"},
      {R"({"model":)" + std::string(100000, '[') + std::string(100000, ']') + "}", "nested deeper"}};
  for (const auto& [text, says] : cases) {
    EXPECT_NE(error_of(text).find(says), std::string::npos) << says << " is not in: " << error_of(text);
    EXPECT_NE(error_of(text).find(directory.string()), std::string::npos) << error_of(text);
  }
}

// A hundred normalizers, each of which doubles the text.
TEST_F(WrittenTokenizer, AGrowingTextIsAnErrorNotAllMemory) {
  std::string doubling = R"({"type":"Replace","pattern":{"String":"a"},"content":"aa"})", all = doubling;
  for (int i = 1; i < 100; ++i) all += "," + doubling;
  ASSERT_EQ(error_of(R"({"model":{"vocab":{"a":0},"merges":[]},"normalizer":{"type":"Sequence","normalizers":[)" + all +
                     "]}}"),
            "");
  EXPECT_THROW(Tokenizer::from_directory(directory).encode("a"), UserError);
}

TEST_F(WrittenTokenizer, ADamagedSentencePieceModelIsOneClearError) {
  const std::string whole = read_text(golden / "small/spm_plain/tokenizer.model");
  const auto error_of_model = [&](const std::string& bytes) -> std::string {
    write_text(directory / "tokenizer.model", bytes);
    try {
      Tokenizer::from_directory(directory);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(error_of_model(whole), "");
  for (const std::string& bytes :
       {std::string(), std::string("not a model"), whole.substr(0, whole.size() - 3), std::string(12, '\xFF'),
        whole.substr(0, 1000), "\x0A\x02\x0A\x7F" + whole, whole + std::string("\x0A\x05\x0A\x03<s>", 7)}) {
    EXPECT_NE(error_of_model(bytes).find("tokenizer.model: "), std::string::npos) << error_of_model(bytes);
  }
}

TEST_F(WrittenTokenizer, ARunawayPatternIsAnErrorNotAHang) {
  const std::string text =
      R"({"model":{"vocab":{"a":0},"merges":[]},"pre_tokenizer":{"type":"Split","behavior":"Isolated",)"
      R"("pattern":{"Regex":"^(a|a)*[bc]$"}}})";
  ASSERT_EQ(error_of(text), "");
  EXPECT_THROW(Tokenizer::from_directory(directory).encode(std::string(60, 'a')), UserError);
}

// tokenizer_config.json may name tokens that tokenizer.json does not know; they get the next ids. The ids
// here are those of transformers' AutoTokenizer on the same two files.
TEST_F(WrittenTokenizer, SideFilesAddTokens) {
  write_text(directory / "tokenizer_config.json",
             R"({"eos_token":"<end>","pad_token":{"content":"b"},"bos_token":"a","add_bos_token":true,
                 "added_tokens_decoder":{"7":{"content":"cc","special":false}}})");
  ASSERT_EQ(error_of(R"({"model":{"vocab":{"a":0,"b":1},"merges":[]}})"), "");
  const auto tokenizer = Tokenizer::from_directory(directory);
  EXPECT_EQ(tokenizer.id_of("cc"), 2);
  EXPECT_EQ(tokenizer.eos_id(), 3);
  EXPECT_EQ(tokenizer.pad_id(), 1);
  EXPECT_EQ(tokenizer.encode("cc<end>b"), (Ids{2, 3, 1}));  // tokenizer.json decides, and adds no bos
  EXPECT_EQ(tokenizer.decode(Ids{2, 3, 1}, true), "cc");
}

// Which file names a token, what id a new one gets, split_special_tokens: transformers' answers, of
// tests/golden/make_tokenizers.py.
TEST_F(WrittenTokenizer, SideFilesAreReadAsTransformersReadsThem) {
  const Json golden_file = read_json(golden / "side_files.json");
  ASSERT_GE(golden_file["cases"].size(), 17u);
  for (const auto& c : golden_file["cases"]) {
    write_text(directory / "tokenizer.json", golden_file["tokenizer"].dump());
    for (const auto& [key, file] :
         {std::pair{"config", "tokenizer_config.json"}, std::pair{"older", "special_tokens_map.json"},
          std::pair{"added", "added_tokens.json"}}) {
      fs::remove(directory / file);
      if (!c[key].empty()) write_text(directory / file, c[key].dump());
    }
    const std::string which = fmt::format("{} {} {}", c["config"].dump(), c["older"].dump(), c["added"].dump());
    const auto tokenizer = Tokenizer::from_directory(directory);
    EXPECT_EQ(tokenizer.vocab_size(), c["size"].get<int64_t>()) << which;
    const auto named = [&](const char* name) {
      return c["named"].contains(name) ? std::optional(c["named"][name][1].get<TokenId>()) : std::nullopt;
    };
    EXPECT_EQ(tokenizer.bos_id(), named("bos_token")) << which;
    EXPECT_EQ(tokenizer.eos_id(), named("eos_token")) << which;
    EXPECT_EQ(tokenizer.pad_id(), named("pad_token")) << which;
    for (const auto& [name, token] : c["named"].items()) {
      EXPECT_EQ(tokenizer.id_of(token[0].get<std::string>()), token[1].get<TokenId>()) << name << which;
      EXPECT_TRUE(tokenizer.is_special(token[1].get<TokenId>())) << name << which;
    }
    for (size_t i = 0; i < golden_file["strings"].size(); ++i)
      EXPECT_EQ(tokenizer.encode(golden_file["strings"][i].get<std::string>(), false), c["ids"][i].get<Ids>())
          << golden_file["strings"][i] << which;
  }
}

TEST_F(WrittenTokenizer, AWrongSideFileIsOneClearError) {
  const std::string tokenizer = R"({"model":{"vocab":{"a":0,"b":1},"merges":[]}})";
  for (const char* config : {"[", "{\"bos_token\":5}", R"({"added_tokens_decoder":{"x":{"content":"c"}}})",
                             R"({"added_tokens_decoder":{"7":"c"}})", R"({"extra_special_tokens":7,"pad_token":[]})",
                             R"({"split_special_tokens":"true"})"}) {
    write_text(directory / "tokenizer_config.json", config);
    EXPECT_NE(error_of(tokenizer).find(directory.string()), std::string::npos) << config << ": " << error_of(tokenizer);
  }
}

// GPT-2's words are not what every class cuts, so a class whose cutting is not known here is refused.
TEST_F(WrittenTokenizer, RefusesAClassItDoesNotKnowWithoutItsFile) {
  write_text(directory / "vocab.json", R"({"a":0})");
  write_text(directory / "merges.txt", "#version: 0.2\n");
  EXPECT_EQ(Tokenizer::from_directory(directory).encode("a"), Ids{0});
  write_text(directory / "tokenizer_config.json", R"({"tokenizer_class":"CodeGenTokenizerFast"})");
  try {
    Tokenizer::from_directory(directory);
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("CodeGenTokenizer"), std::string::npos) << error.what();
  }
}

TEST_F(WrittenTokenizer, ModelConfigNamesIdsWhereNothingElseDoes) {
  write_text(directory / "config.json", R"({"bos_token_id":0,"eos_token_id":[1,0],"pad_token_id":1})");
  ASSERT_EQ(error_of(R"({"model":{"vocab":{"a":0,"b":1},"merges":[]}})"), "");
  const auto tokenizer = Tokenizer::from_directory(directory);
  EXPECT_EQ(tokenizer.bos_id(), 0);
  EXPECT_FALSE(tokenizer.eos_id());  // a list says where to stop, not which token ends a text
  EXPECT_EQ(tokenizer.pad_id(), 1);
}

}  // namespace
}  // namespace dsengine
