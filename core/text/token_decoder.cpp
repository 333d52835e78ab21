#include "text/token_decoder.h"

#include <cctype>
#include <numeric>
#include <optional>

#include "text/byte_level.h"
#include "text/normalizer.h"
#include "text/regex.h"
#include "text/utf8.h"

namespace dsengine {
namespace {

using Tokens = std::vector<std::string>;

class ByteLevelDecoder : public TokenDecoder {
 public:
  Tokens decode(Tokens tokens) const override { return {to_valid_utf8(bytes_of(tokens))}; }
  bool is_settled(const Tokens& tokens, bool) const override { return incomplete_tail(bytes_of(tokens)) == 0; }
  bool fuses() const override { return true; }

 private:
  static std::string bytes_of(const Tokens& tokens) {
    std::string bytes;
    for (const auto& token : tokens) append_bytes(token, bytes);
    return bytes;
  }
};

class MetaspaceDecoder : public TokenDecoder {
 public:
  MetaspaceDecoder(Regex mark, bool drops_first) : mark_(std::move(mark)), drops_first_(drops_first) {}
  Tokens decode(Tokens tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = replace_all(tokens[i], mark_, i == 0 && drops_first_ ? "" : " ");
    }
    return tokens;
  }
  bool is_settled(const Tokens&, bool) const override { return true; }

 private:
  Regex mark_;
  bool drops_first_;
};

// "<0xE2>" and its like become the characters they spell; a run that spells none becomes one U+FFFD each.
class ByteFallbackDecoder : public TokenDecoder {
 public:
  Tokens decode(Tokens tokens) const override {
    Tokens result;
    std::string run;
    const auto end_run = [&] {
      if (run.empty()) return;
      if (is_valid_utf8(run)) {
        result.push_back(run);
      } else {
        result.insert(result.end(), run.size(), "\uFFFD");
      }
      run.clear();
    };
    for (auto& token : tokens) {
      if (const auto byte = byte_of(token)) {
        run.push_back(*byte);
        continue;
      }
      end_run();
      result.push_back(std::move(token));
    }
    end_run();
    return result;
  }
  bool is_settled(const Tokens& tokens, bool fused) const override {
    return !fused && (tokens.empty() || !byte_of(tokens.back()));
  }

 private:
  static std::optional<char> byte_of(const std::string& token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
    if (!std::isxdigit(static_cast<unsigned char>(token[3])) || !std::isxdigit(static_cast<unsigned char>(token[4]))) {
      return std::nullopt;
    }
    return static_cast<char>(std::stoi(token.substr(3, 2), nullptr, 16));
  }
};

class FuseDecoder : public TokenDecoder {
 public:
  Tokens decode(Tokens tokens) const override { return {std::accumulate(tokens.begin(), tokens.end(), std::string())}; }
  bool is_settled(const Tokens&, bool) const override { return true; }
  bool fuses() const override { return true; }
};

// Cuts up to `start` and `stop` times `content` (one character) off each token's ends.
class StripDecoder : public TokenDecoder {
 public:
  StripDecoder(std::string content, size_t start, size_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  Tokens decode(Tokens tokens) const override {
    for (auto& token : tokens) {
      for (size_t i = 0; i < start_ && token.starts_with(content_); ++i) token.erase(0, content_.size());
      for (size_t i = 0; i < stop_ && token.ends_with(content_); ++i) token.erase(token.size() - content_.size());
    }
    return tokens;
  }
  bool is_settled(const Tokens&, bool fused) const override { return !fused || stop_ == 0; }

 private:
  std::string content_;
  size_t start_, stop_;
};

class ReplaceDecoder : public TokenDecoder {
 public:
  ReplaceDecoder(Regex pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  Tokens decode(Tokens tokens) const override {
    for (auto& token : tokens) token = replace_all(token, pattern_, content_);
    return tokens;
  }
  bool is_settled(const Tokens&, bool fused) const override { return !fused; }

 private:
  Regex pattern_;
  std::string content_;
};

class SequenceDecoder : public TokenDecoder {
 public:
  SequenceDecoder(std::vector<std::unique_ptr<TokenDecoder>> parts, std::string where)
      : parts_(std::move(parts)), where_(std::move(where)) {}
  Tokens decode(Tokens tokens) const override {
    const auto bytes_of = [](const Tokens& all) {
      return std::accumulate(all.begin(), all.end(), size_t{0},
                             [](size_t sum, const auto& t) { return sum + t.size(); });
    };
    // Replacements in a row can grow a text exponentially; no honest one grows it so.
    const size_t most_bytes = (size_t{1} << 20) + 256 * bytes_of(tokens);
    for (const auto& part : parts_) {
      tokens = part->decode(std::move(tokens));
      DSE_CHECK_USER(bytes_of(tokens) <= most_bytes, "{}: its decoders make more than {} bytes of a text", where_,
                     most_bytes);
    }
    return tokens;
  }
  bool is_settled(const Tokens& tokens, bool fused) const override {
    Tokens now = tokens;
    for (const auto& part : parts_) {
      if (!part->is_settled(now, fused)) return false;
      fused = fused || part->fuses();
      now = part->decode(std::move(now));
    }
    return true;
  }
  bool fuses() const override {
    for (const auto& part : parts_) {
      if (part->fuses()) return true;
    }
    return false;
  }

 private:
  std::vector<std::unique_ptr<TokenDecoder>> parts_;
  std::string where_;
};

class SpaceDecoder : public TokenDecoder {
 public:
  Tokens decode(Tokens tokens) const override {
    for (size_t i = 1; i < tokens.size(); ++i) tokens[i].insert(tokens[i].begin(), ' ');
    return tokens;
  }
  bool is_settled(const Tokens&, bool) const override { return true; }
};

}  // namespace

std::unique_ptr<TokenDecoder> make_decoder(const TokenizerJson& json, const std::string& where) {
  if (json.is_null()) return std::make_unique<SpaceDecoder>();
  const std::string type = type_of(json);
  if (type == "ByteLevel") return std::make_unique<ByteLevelDecoder>();
  if (type == "ByteFallback") return std::make_unique<ByteFallbackDecoder>();
  if (type == "Fuse") return std::make_unique<FuseDecoder>();
  if (type == "Metaspace") {
    const bool drops_first =
        value_or(json, "add_prefix_space", true) && value_or<std::string>(json, "prepend_scheme", "always") != "never";
    return std::make_unique<MetaspaceDecoder>(Regex::literal(value_or<std::string>(json, "replacement", "▁"), where),
                                              drops_first);
  }
  if (type == "Strip") {
    const auto count = [&](const char* key) {
      const auto number = whole_number(json.at(key), 0, INT32_MAX);
      DSE_CHECK_USER(number, "{}: decoder Strip's {} is {}, not a count", where, key, json.at(key).dump());
      return size_t(*number);
    };
    return std::make_unique<StripDecoder>(one_char(json.at("content"), "decoder Strip's content", where),
                                          count("start"), count("stop"));
  }
  if (type == "Replace") {
    return std::make_unique<ReplaceDecoder>(make_pattern(json.at("pattern"), where),
                                            json.at("content").get<std::string>());
  }
  if (type == "Sequence") {
    std::vector<std::unique_ptr<TokenDecoder>> parts;
    for (const auto& part : json.at("decoders")) parts.push_back(make_decoder(part, where));
    return std::make_unique<SequenceDecoder>(std::move(parts), where);
  }
  unsupported(where, "decoder", type, "Sequence, ByteLevel, ByteFallback, Fuse, Metaspace, Strip, Replace");
}

}  // namespace dsengine
