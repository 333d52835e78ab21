// A model's texts and conversations as token ids: what it is asked, what it is to answer, what of it is learned.
//
//   TextModel text = TextModel::load("models/tiny", "models/tiny");
//   std::vector<TokenId> prompt = text.prompt_tokens({{"user", "How are you?"}});
//   std::vector<TokenId> answer = text.answer_tokens({{"user", "How are you?"}}, "Fine.");
//
// Ids are those of transformers' apply_chat_template, but that a special token which a user wrote is ordinary text.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "text/chat_format.h"
#include "text/tokenizer.h"

namespace dsengine {

// Tokens and which of them are loss targets.
struct AnswerTokens {
  std::vector<TokenId> tokens;
  std::vector<uint8_t> mask;
};

struct TextModel {
  Tokenizer tokenizer;
  std::vector<TokenId>
      eos;  // any of them ends an answer; the first is what training appends where nothing else ends it
  ChatFormat chat;

  // A conversation up to the opening of the answer, with the end token after each turn of the assistant.
  std::vector<TokenId> prompt_tokens(const std::vector<ChatMessage>& turns, const ChatOptions& options = {}) const;
  std::string prompt_text(const std::vector<ChatMessage>& turns, bool with_ends, const ChatOptions& options = {}) const;
  // What follows prompt_tokens where the assistant answers so, its end token included unless it was cut off.
  std::vector<TokenId> answer_tokens(const std::vector<ChatMessage>& turns, const std::string& answer,
                                     bool ended = true, const ChatOptions& options = {}) const;
  // A whole conversation. Targets are the assistant's turns that are marked to train, each with its end: what
  // {% generation %} says, else what a turn adds to the conversation before it.
  AnswerTokens conversation(const std::vector<ChatMessage>& turns, const ChatOptions& options = {}) const;
  // As transformers' return_assistant_tokens_mask: of the template's {% generation %} blocks alone.
  AnswerTokens marked(const std::vector<ChatPiece>& pieces) const;

  // It has a chat template, and another one than `other` has.
  bool has_words_beside(const TextModel& other) const { return chat.has_template() && !chat.is_like(other.chat); }
  // The special token that ends an assistant's turn, or what training appends to one; nothing where no token does.
  std::optional<TokenId> turn_end() const;
  // Ends a turn, for the model or for whoever reads its template.
  bool is_end(TokenId id) const;

  // Where a model's tokenizer lies: its own folder, an adapter's else its base's (`base`: as in files/hf_directory.h);
  // nothing where neither has one.
  static std::optional<std::filesystem::path> folder_of(const std::filesystem::path& model_directory,
                                                        const std::filesystem::path& base = {});
  // Reads the tokenizer's folder; eos ids from `model_directory`, else the tokenizer's own.
  static TextModel load(const std::filesystem::path& tokenizer_directory, const std::filesystem::path& model_directory,
                        const std::filesystem::path& base = {});

 private:
  std::vector<TokenId> encode(const jinja::Text& text, size_t size, bool add_special_tokens) const;
  size_t end_of_turn(const std::vector<TokenId>& ids, size_t from, size_t to) const;
  void learn_differences(const std::vector<ChatMessage>& turns, const ChatOptions& options, const jinja::Text& whole,
                         AnswerTokens& to) const;
};

}  // namespace dsengine
