// Each normalizer, pre-tokenizer and decoder alone, against Hugging Face's tokenizers on the same input.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/json.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"
#include "text/tokenizer_json.h"
#include "text/utf8.h"

namespace dsengine {
namespace {

using Texts = std::vector<std::string>;

TokenizerJson parts() {
  return read_tokenizer_json(std::filesystem::path(DSE_TEST_DIR) / "golden/tokenizers/parts.json");
}

TEST(Parts, NormalizersMatch) {
  const auto file = parts();
  for (const auto& part : file["normalizer"]) {
    const Normalizer normalizer = make_normalizer(part["json"], "test");
    for (size_t i = 0; i < file["inputs"].size(); ++i) {
      Segment segment{file["inputs"][i].get<std::string>()};
      normalizer(segment);
      EXPECT_EQ(segment.text, part["outputs"][i].get<std::string>()) << part["json"] << " of " << file["inputs"][i];
    }
  }
}

TEST(Parts, PreTokenizersMatch) {
  const auto file = parts();
  for (const auto& part : file["pre_tokenizer"]) {
    const PreTokenizer pre_tokenizer = make_pre_tokenizer(part["json"], "test");
    for (size_t i = 0; i < file["inputs"].size(); ++i) {
      Pieces pieces = whole(file["inputs"][i].get<std::string>(), true);
      pre_tokenizer(pieces);
      Texts words;
      for (size_t j = 0; j < pieces.spans.size(); ++j) words.emplace_back(pieces.at(j));
      EXPECT_EQ(words, part["outputs"][i].get<Texts>()) << part["json"] << " of " << file["inputs"][i];
    }
  }
}

TEST(Parts, DecodersMatch) {
  const auto file = parts();
  for (const auto& part : file["decoder"]) {
    const auto decoder = make_decoder(part["json"], "test");
    for (size_t i = 0; i < file["tokens"].size(); ++i) {
      std::string text;
      for (const auto& piece : decoder->decode(file["tokens"][i].get<Texts>())) text += piece;
      EXPECT_EQ(text, part["outputs"][i].get<std::string>()) << part["json"] << " of " << file["tokens"][i];
    }
  }
}

// Every character there is, for each class: positions count characters, and what matches comes in runs.
TEST(Parts, CharacterClassesMatch) {
  std::string text;
  std::vector<size_t> at;  // by character: where it begins
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    at.push_back(text.size());
    append_utf8(text, code);
  }
  at.push_back(text.size());
  for (const auto& row : read_tokenizer_json(std::filesystem::path(DSE_TEST_DIR) / "golden/tokenizers/classes.json")) {
    std::vector<Span> expected, found;
    size_t position = 0;
    const auto changes = row["changes"].get<std::vector<size_t>>();
    for (size_t i = 0; i < changes.size(); i += 2) {
      const size_t begin = position + changes[i], end = begin + changes[i + 1];
      expected.push_back({at[begin], at[end]});
      position = end;
    }
    const auto pattern = row["pattern"].get<std::string>();
    Regex("(?:" + pattern + ")+", "test").for_each_match(text, [&](Span match) { found.push_back(match); });
    ASSERT_EQ(found.size(), expected.size()) << pattern;
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(found[i], expected[i]) << pattern << " at U+" << std::hex << uint32_t(char_at(text, found[i].begin))
                                       << ", expected U+" << uint32_t(char_at(text, expected[i].begin));
    }
  }
}

// The examples of the Unicode standard, section 3.9 (tables 3-8 to 3-11).
TEST(Utf8, ReplacesMaximalSubparts) {
  const std::string r = "\uFFFD";
  EXPECT_EQ(to_valid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(to_valid_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(to_valid_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(to_valid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
}

TEST(Utf8, KnowsWhatMoreBytesCouldComplete) {
  EXPECT_EQ(incomplete_tail("a"), 0u);
  EXPECT_EQ(incomplete_tail("a\xC3"), 1u);
  EXPECT_EQ(incomplete_tail("a\xF0\x9F\x98"), 3u);
  EXPECT_EQ(incomplete_tail("\xF0\x9F\x98\x80"), 0u);
  EXPECT_EQ(incomplete_tail("\xED\xA0"), 0u);  // a surrogate: never valid
  EXPECT_EQ(incomplete_tail("\x80"), 0u);
}

}  // namespace
}  // namespace dsengine
