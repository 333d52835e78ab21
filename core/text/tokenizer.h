// A tokenizer of a Hugging Face directory, with Hugging Face's ids: byte-pair encoding from tokenizer.json,
// from vocab.json and merges.txt, or from SentencePiece's tokenizer.model. Immutable, cheap to copy, and thread-safe.
//
//   Tokenizer tokenizer = Tokenizer::from_directory("models/opt-125m");
//   std::vector<TokenId> ids = tokenizer.encode("Hello");
//   std::string text = tokenizer.decode(ids, /*skip_special_tokens=*/true);
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dsengine {

using TokenId = int32_t;

struct TokenizerParts;

class Tokenizer {
 public:
  // A missing file, or one that asks for what is not supported (WordPiece, Unigram, …), is a UserError.
  static Tokenizer from_directory(const std::filesystem::path& directory);
  static bool exists_in(const std::filesystem::path& directory);
  // A tokenizer.json's text, without a directory's other files; `where` names it in errors.
  static Tokenizer from_json(std::string_view tokenizer_json, const std::string& where);

  // `text` must be valid UTF-8 (else UserError). `add_special_tokens` adds what the tokenizer puts around a
  // sequence; a special token written in the text becomes its id either way.
  std::vector<TokenId> encode(std::string_view text, bool add_special_tokens = true) const;

  // The same of a text that is partly a user's: `content`, as long as the text, is not '\0' at the bytes that are. No
  // special token is read there; ids are otherwise those of encode.
  std::vector<TokenId> encode_marked(std::string_view text, std::string_view content, bool add_special_tokens) const;

  // Always valid UTF-8: broken sequences become U+FFFD. Ids without a token are left out.
  std::string decode(std::span<const TokenId> ids, bool skip_special_tokens) const;

  int64_t vocab_size() const;  // highest id + 1
  std::optional<TokenId> id_of(std::string_view token) const;
  std::string token_of(TokenId id) const;  // as the vocabulary writes it ("Ġworld"); "" if there is none
  bool is_special(TokenId id) const;
  // Every id stands for the same token in both.
  bool has_ids_of(const Tokenizer& other) const;

  std::optional<TokenId> bos_id() const;
  std::optional<TokenId> eos_id() const;
  std::optional<TokenId> pad_id() const;

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::shared_ptr<const TokenizerParts> parts) : parts_(std::move(parts)) {}
  std::vector<std::string> tokens_of(std::span<const TokenId> ids, bool skip_special_tokens) const;

  std::shared_ptr<const TokenizerParts> parts_;
};

// Decodes as tokens arrive. What push and finish return, joined, is decode of all the ids; a text is given
// out only when no later token can change it, so never half a character.
//
//   StreamDecoder stream(tokenizer);
//   for (TokenId id : generated) std::cout << stream.push(id) << std::flush;
//   std::cout << stream.finish();
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens = true);
  std::string push(TokenId id);
  std::string finish();  // afterwards the decoder is as new
  // What finish would give, were these all the tokens.
  std::string pending() const;

 private:
  // The text of what is pending, and the tokens that it was decoded from.
  std::pair<std::string, std::vector<std::string>> decoded() const;
  std::string take_pending();

  Tokenizer tokenizer_;
  bool skip_special_tokens_;
  // The first tokens that gave text. Decoders treat a text's beginning in a way of their own (a space is
  // dropped), so what is pending is decoded behind these, and their text is cut off again.
  std::vector<std::string> beginning_;
  std::string beginning_text_;
  std::vector<std::string> pending_;
};

}  // namespace dsengine
