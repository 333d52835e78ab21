// Tokenizers against Hugging Face's: tests/golden/make_tokenizers.py wrote the ids and the decodes.
#include "text/tokenizer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "base/check.h"
#include "base/json.h"
#include "text/utf8.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<TokenId>;

const fs::path golden = fs::path(DSE_TEST_DIR) / "golden/tokenizers";

std::vector<std::string> golden_strings() { return read_json(golden / "strings.json").get<std::vector<std::string>>(); }

std::string stream(const Tokenizer& tokenizer, const Ids& ids, bool skip) {
  StreamDecoder decoder(tokenizer, skip);
  std::string text;
  for (const TokenId id : ids) {
    const std::string part = decoder.push(id);
    EXPECT_TRUE(is_valid_utf8(part));
    text += part;
  }
  return text + decoder.finish();
}

// Ids with and without special tokens, and both decodes, whole and streamed, of every string.
void expect_as_hugging_face(const Tokenizer& tokenizer, const Json& expected, const std::vector<std::string>& strings) {
  ASSERT_GE(strings.size(), 400u);
  ASSERT_EQ(expected["ids"].size(), strings.size());
  const auto text_of = [&](const char* key, size_t i) {
    return expected[key][i].is_null() ? strings[i] : expected[key][i].get<std::string>();
  };
  for (size_t i = 0; i < strings.size(); ++i) {
    const auto ids = expected["ids"][i].get<Ids>();
    EXPECT_EQ(tokenizer.encode(strings[i]), ids) << i << ": " << Json(strings[i]);
    for (const bool skip : {false, true}) {
      const std::string text = text_of(skip ? "skipped" : "decoded", i);
      EXPECT_EQ(tokenizer.decode(ids, skip), text) << i << ", skip " << skip;
      EXPECT_EQ(stream(tokenizer, ids, skip), text) << i << ", skip " << skip;
    }
  }
  for (size_t i = 0; i < expected["plain"].size(); ++i) {
    EXPECT_EQ(tokenizer.encode(strings[i], false), expected["plain"][i].get<Ids>()) << i << ": " << Json(strings[i]);
  }
  EXPECT_EQ(tokenizer.vocab_size(), expected["vocab_size"].get<int64_t>());
}

class SmallTokenizer : public testing::TestWithParam<const char*> {
 protected:
  const Tokenizer tokenizer = Tokenizer::from_directory(golden / "small" / GetParam());
  const Json expected = read_json(golden / "small" / (GetParam() + std::string(".json")));
  const std::vector<std::string> strings = golden_strings();
};

TEST_P(SmallTokenizer, EncodesAndDecodesAsHuggingFace) { expect_as_hugging_face(tokenizer, expected, strings); }

// The second pass finds every short word in the cache.
TEST_P(SmallTokenizer, EncodesTheSameTwiceAndFromManyThreads) {
  std::vector<Ids> first;
  for (const auto& text : strings) first.push_back(tokenizer.encode(text));
  std::vector<std::thread> threads;
  std::vector<int> differences(4, 0);
  for (size_t t = 0; t < differences.size(); ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < strings.size(); ++i) differences[t] += tokenizer.encode(strings[i]) != first[i];
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(differences, std::vector<int>(differences.size(), 0));
}

TEST_P(SmallTokenizer, DecodesIdsCutWithinCharacters) {
  for (size_t i = 0; i < expected["fragments"].size(); ++i) {
    auto ids = expected["ids"][i].get<Ids>();
    ids = ids.size() < 2 ? Ids{} : Ids(ids.begin() + 1, ids.end() - 1);
    EXPECT_EQ(tokenizer.decode(ids, false), expected["fragments"][i].get<std::string>()) << i;
    EXPECT_EQ(stream(tokenizer, ids, false), expected["fragments"][i].get<std::string>()) << i;
  }
}

// Any order of ids, such as an untrained model gives: streamed and whole must agree.
TEST_P(SmallTokenizer, StreamsArbitraryIds) {
  uint32_t state = 12345;
  for (int round = 0; round < 300; ++round) {
    Ids ids;
    for (int i = 0; i < 40; ++i) {
      state = state * 1664525 + 1013904223;
      const uint32_t range = round % 2 ? 260 : static_cast<uint32_t>(tokenizer.vocab_size()) + 2;
      ids.push_back(static_cast<TokenId>((state >> 8) % range));
    }
    EXPECT_EQ(stream(tokenizer, ids, round % 3 == 0), tokenizer.decode(ids, round % 3 == 0));
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, SmallTokenizer,
                         testing::Values("llama3_style", "metaspace", "mixed", "opt_style", "qwen_style", "gemma_style",
                                         "neox_style", "phi3_style", "llama_legacy", "llama_style", "llama_bare",
                                         "spm_legacy", "spm_ends", "spm_bare", "spm_gemma", "spm_plain", "qwen_merges",
                                         "neox_merges"),
                         [](const auto& param_info) { return std::string(param_info.param); });

TEST(Tokenizer, NamesItsSpecialTokens) {
  const auto llama = Tokenizer::from_directory(golden / "small/llama3_style");
  EXPECT_EQ(llama.token_of(llama.bos_id().value()), "<|begin_of_text|>");
  EXPECT_EQ(llama.token_of(llama.eos_id().value()), "<|eot_id|>");
  EXPECT_FALSE(llama.pad_id());
  EXPECT_TRUE(llama.is_special(*llama.eos_id()));
  EXPECT_FALSE(llama.is_special(llama.id_of("a").value()));
  EXPECT_EQ(llama.token_of(100000), "");
  EXPECT_EQ(llama.token_of(-1), "");

  const auto opt = Tokenizer::from_directory(golden / "small/opt_style");
  EXPECT_EQ(opt.bos_id(), opt.id_of("</s>"));
  EXPECT_EQ(opt.pad_id(), opt.id_of("<pad>"));
  EXPECT_EQ(opt.encode(""), Ids{*opt.bos_id()});
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  const auto tokenizer = Tokenizer::from_directory(golden / "small/opt_style");
  for (const char* text : {"\xC3", "a\xFFz", "\xED\xA0\x80", "\xC0\x80", "\xF4\x90\x80\x80", "\xE2\x82"}) {
    EXPECT_THROW(tokenizer.encode(text), UserError);
  }
}

TEST(Tokenizer, EmitsACharacterOnlyWhenItIsWhole) {
  const auto tokenizer = Tokenizer::from_directory(golden / "small/opt_style");
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(tokenizer.id_of("â").value()), "");   // E2
  EXPECT_EQ(decoder.push(tokenizer.id_of("Ĥ").value()), "");   // 82
  EXPECT_EQ(decoder.push(tokenizer.id_of("¬").value()), "€");  // AC
  EXPECT_EQ(decoder.push(tokenizer.id_of("â").value()), "");
  EXPECT_EQ(decoder.push(tokenizer.id_of("a").value()), "\uFFFDa");
  EXPECT_EQ(decoder.push(tokenizer.id_of("â").value()), "");
  EXPECT_EQ(decoder.finish(), "\uFFFD");
}

// 400,000 letters are one word; merging that takes n² steps would need hours.
TEST(Tokenizer, EncodesAVeryLongWordInTime) {
  for (const char* name : {"opt_style", "metaspace"}) {
    const auto tokenizer = Tokenizer::from_directory(golden / "small" / name);
    std::string word;
    for (int i = 0; i < 100000; ++i) word += "then";
    const auto start = std::chrono::steady_clock::now();
    const auto ids = tokenizer.encode(word, false);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
    EXPECT_EQ(tokenizer.decode(ids, false), word);
  }
}

class RealTokenizer : public testing::TestWithParam<const char*> {
 protected:
  static fs::path data() {
    const char* named = std::getenv("DSENGINE_TEST_DATA");
    return named ? fs::path(named) : fs::path(DSE_SOURCE_DIR).parent_path() / "shared/data";
  }
};

TEST_P(RealTokenizer, EncodesAsHuggingFace) {
  const fs::path directory = data() / "tokenizers" / GetParam();
  if (!Tokenizer::exists_in(directory)) {
    GTEST_SKIP() << "NO REAL TOKENIZER " << directory << ": set DSENGINE_TEST_DATA to the test data to run this";
  }
  const auto tokenizer = Tokenizer::from_directory(directory);
  expect_as_hugging_face(tokenizer, read_json(golden / "real" / (GetParam() + std::string(".json"))), golden_strings());
  EXPECT_TRUE(tokenizer.eos_id());
  if (GetParam() != std::string("mistral")) return;
  // Beside a Mistral's config.json transformers follows the file, without one the class that it names.
  const fs::path model = fs::path(testing::TempDir()) / fmt::format("dse_mistral_{}", getpid());
  fs::copy(directory, model, fs::copy_options::recursive);
  write_text(model / "config.json", R"({"model_type": "mistral"})");
  expect_as_hugging_face(Tokenizer::from_directory(model), read_json(golden / "real/mistral_model.json"),
                         golden_strings());
  fs::remove_all(model);
}

INSTANTIATE_TEST_SUITE_P(Golden, RealTokenizer, testing::Values("gpt2", "llama2", "llama3", "mistral"),
                         [](const auto& param_info) { return std::string(param_info.param); });

}  // namespace
}  // namespace dsengine
