// Stop strings and tokens: where an answer ends, and what of it is said.
#include "text/stops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "base/check.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<TokenId>;

Tokenizer small(const std::string& name) {
  return Tokenizer::from_directory(fs::path(DSE_TEST_DIR) / "golden/tokenizers/small" / name);
}

// The number of tokens at which an answer ends: 0, it does not.
size_t end_of(const Stops& stops, const Ids& tokens) {
  StopMatcher matcher(stops);
  for (size_t n = 1; n <= tokens.size(); ++n)
    if (matcher.push(tokens[n - 1])) return n;
  return 0;
}

TEST(Stops, EndWhereTheTextComesToHoldOne) {
  const auto tokenizer = small("llama3_style");
  const auto ids = tokenizer.encode("Hello, how are you?\nHuman: fine", false);
  const Stops stops(tokenizer, {"\nHuman:", "never"}, {});
  const size_t n = end_of(stops, ids);
  ASSERT_GT(n, 0u);
  EXPECT_NE(tokenizer.decode(std::span(ids).first(n), true).find("\nHuman:"), std::string::npos);
  EXPECT_EQ(tokenizer.decode(std::span(ids).first(n - 1), true).find("\nHuman:"), std::string::npos);
  EXPECT_EQ(stops.text_before(std::span(ids).first(n)), "Hello, how are you?");
  EXPECT_EQ(end_of(Stops(tokenizer, {"zzz"}, {}), ids), 0u);
  EXPECT_TRUE(Stops(tokenizer, {}, {}).empty());
  EXPECT_THROW(Stops(tokenizer, {"a", ""}, {}), UserError);
}

TEST(Stops, EndAtATokenAndAtAStringThatIsOne) {
  const auto tokenizer = small("llama3_style");
  auto ids = tokenizer.encode("Hello, you", false);
  const TokenId end = tokenizer.id_of("<|eot_id|>").value(), comma = ids[1];
  ASSERT_TRUE(tokenizer.is_special(end));
  const size_t before = ids.size();
  ids.push_back(end);
  for (const Stops& stops : {Stops(tokenizer, {}, {end}), Stops(tokenizer, {"<|eot_id|>"}, {})}) {
    EXPECT_EQ(end_of(stops, ids), before + 1);
    EXPECT_EQ(stops.text_before(ids), "Hello, you");
  }
  const Stops at_comma(tokenizer, {}, {comma});
  EXPECT_EQ(end_of(at_comma, ids), 2u);
  EXPECT_EQ(at_comma.text_before(std::span(ids).first(2)), tokenizer.decode(std::span(ids).first(1), true));
}

// Decoding the last few tokens finds what decoding all of them does, whatever a decoder makes of a beginning.
TEST(Stops, FindInTheTailWhatTheWholeHolds) {
  std::mt19937 draw(7);
  int64_t found = 0, tried = 0;
  for (const char* name : {"llama3_style", "llama_style", "metaspace", "opt_style", "phi3_style", "spm_plain"}) {
    const auto tokenizer = small(name);
    std::vector<TokenId> ids;
    for (TokenId id = 0; id < tokenizer.vocab_size(); ++id)
      if (!tokenizer.token_of(id).empty()) ids.push_back(id);
    for (int round = 0; round < 60; ++round) {
      Ids tokens;
      for (int i = 0; i < 80; ++i) tokens.push_back(ids[draw() % ids.size()]);
      const std::string text = tokenizer.decode(tokens, true);
      if (text.size() < 40) continue;
      const auto inside = [&](size_t at) { return at < text.size() && (text[at] & 0xC0) == 0x80; };
      size_t from = text.size() / 2 + draw() % (text.size() / 2 - 8), to = from + 1 + draw() % 6;
      while (inside(from)) --from;
      while (inside(to)) ++to;
      const std::string stop = text.substr(from, to - from);
      if (stop.find("\uFFFD") != stop.npos) continue;  // comes and goes with the next byte
      if (tokenizer.id_of(stop) && tokenizer.is_special(*tokenizer.id_of(stop))) continue;
      const Stops stops(tokenizer, {stop}, {});
      size_t n = 1;
      while (n < tokens.size() && tokenizer.decode(std::span(tokens).first(n), true).find(stop) == std::string::npos)
        ++n;
      EXPECT_EQ(end_of(stops, tokens), n) << name << " '" << stop << "'";
      ++tried, found += n < tokens.size();
    }
  }
  EXPECT_GT(found, 200) << tried;
}

}  // namespace
}  // namespace dsengine
