// tokenizer.model: the pieces of a SentencePiece model, and the byte-pair tokenizer that Hugging Face's transformers
// makes of them. Its ids, not SentencePiece's own, are what a model of the Hub is used with: they differ where a text
// begins with a space. Only BPE models; a Unigram model is a UserError.
//
//   SentencePieceModel model = read_sentencepiece_model("models/llama2/tokenizer.model");
//   model.pieces[1].text;                                    // "<s>"
//   TokenizerJson json = tokenizer_json_of(model, SentencePieceForm::llama, config, where);
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_json.h"

namespace dsengine {

struct SentencePiece {
  enum Type : uint64_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  std::string text = {};
  uint64_t type = normal;
};

struct SentencePieceModel {
  std::vector<SentencePiece> pieces = {};  // by id
  bool is_bpe = false;
  bool byte_fallback = false;
  bool rewrites_characters = false;  // has a table of normalizations
  std::string unk = "<unk>", bos = "<s>", eos = "</s>";
};

// The model's bytes, a protocol buffer; `where` names them in errors.
SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& where);
SentencePieceModel read_sentencepiece_model(const std::filesystem::path& path);

// Which of transformers' classes reads the directory: tokenizer_config.json names a class, config.json a model_type.
enum class SentencePieceForm { llama, gemma, plain };
SentencePieceForm sentencepiece_form(const std::string& tokenizer_class, const std::string& model_type);

// Makes a tokenizer.json's parts but its vocabulary, merges and post-processor what transformers' LlamaTokenizer has
// them, which does not read them from the file: tokenizer_config.json's `legacy` and `add_prefix_space` say how a text
// begins. For each text between special tokens, or (legacy) for each of them alike.
void set_llama_parts(TokenizerJson& json, const TokenizerJson& config);

// The tokenizer.json that transformers makes of the model, without what tokenizer_config.json adds.
TokenizerJson tokenizer_json_of(const SentencePieceModel& model, SentencePieceForm form, const TokenizerJson& config,
                                const std::string& where);
// What bos_token and its like are where tokenizer_config.json says nothing.
TokenizerJson named_tokens_of(const SentencePieceModel& model, SentencePieceForm form);

}  // namespace dsengine
