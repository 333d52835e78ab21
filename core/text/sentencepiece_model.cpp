#include "text/sentencepiece_model.h"

#include <optional>

#include "text/utf8.h"

namespace dsengine {
namespace {

// The fields of a protocol buffer's message, one after the other.
class Message {
 public:
  Message(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  bool next() {
    if (bytes_.empty()) return false;
    const uint64_t key = varint();
    number_ = key >> 3;
    value_ = 0;
    content_ = {};
    switch (key & 7) {
      case 0:
        value_ = varint();
        break;
      case 1:
        take(8);
        break;
      case 2:
        content_ = take(varint());
        break;
      case 5:
        take(4);
        break;
      default:
        damaged();
    }
    return true;
  }
  uint64_t number() const { return number_; }
  uint64_t value() const { return value_; }
  std::string_view content() const { return content_; }  // of a text, or of a message within

 private:
  [[noreturn]] void damaged() const { user_error(where_ + ": not a SentencePiece model, or a damaged one"); }
  std::string_view take(uint64_t count) {
    if (count > bytes_.size()) damaged();
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    damaged();
  }

  std::string_view bytes_;
  const std::string& where_;
  uint64_t number_ = 0, value_ = 0;
  std::string_view content_;
};

// The numbers below are those of sentencepiece_model.proto.
SentencePiece piece_of(Message message, const std::string& where) {
  SentencePiece piece;
  while (message.next()) {
    if (message.number() == 1) piece.text = message.content();
    if (message.number() == 3) piece.type = message.value();
  }
  DSE_CHECK_USER(is_valid_utf8(piece.text), "{}: a piece is not valid UTF-8", where);
  constexpr size_t longest = 4096;  // each of its cuts is tried as a merge
  DSE_CHECK_USER(piece.text.size() <= longest, "{}: a piece has {} bytes, more than {}", where, piece.text.size(),
                 longest);
  return piece;
}

void read_trainer_spec(Message message, SentencePieceModel& model) {
  constexpr uint64_t bpe = 2;
  while (message.next()) {
    switch (message.number()) {
      case 3:
        model.is_bpe = message.value() == bpe;
        break;
      case 35:
        model.byte_fallback = message.value() != 0;
        break;
      case 45:
        model.unk = message.content();
        break;
      case 46:
        model.bos = message.content();
        break;
      case 47:
        model.eos = message.content();
        break;
      case 41:  // bos_id and eos_id: negative where there is none
        if (static_cast<int64_t>(message.value()) < 0) model.bos.clear();
        break;
      case 42:
        if (static_cast<int64_t>(message.value()) < 0) model.eos.clear();
        break;
    }
  }
}

// Every cut of a piece into two is a merge, the pieces in the order of their ids, as transformers makes them.
TokenizerJson merges_of(const SentencePieceModel& model, const TokenizerJson& vocabulary) {
  TokenizerJson merges = TokenizerJson::array();
  for (const auto& piece : model.pieces) {
    const std::string& text = piece.text;
    if (text.empty()) continue;
    for (size_t at = char_bytes(text, 0); at < text.size(); at += char_bytes(text, at)) {
      std::string left = text.substr(0, at), right = text.substr(at);
      if (!vocabulary.contains(left) || !vocabulary.contains(right)) continue;
      merges.push_back(TokenizerJson::array({std::move(left), std::move(right)}));
    }
  }
  return merges;
}

TokenizerJson part(const char* type, std::initializer_list<std::pair<const char*, TokenizerJson>> fields = {}) {
  TokenizerJson json{{"type", type}};
  for (const auto& [key, value] : fields) json[key] = value;
  return json;
}

TokenizerJson replace(const char* what, const char* content) {
  return part("Replace", {{"pattern", {{"String", what}}}, {"content", content}});
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& where) {
  SentencePieceModel model;
  for (Message message(bytes, where); message.next();) {
    const Message inner(message.content(), where);
    if (message.number() == 1) {
      model.pieces.push_back(piece_of(inner, where));
    } else if (message.number() == 2) {
      read_trainer_spec(inner, model);
    } else if (message.number() == 3) {
      for (Message spec = inner; spec.next();) {
        if (spec.number() == 2) model.rewrites_characters = !spec.content().empty();
      }
    }
  }
  DSE_CHECK_USER(!model.pieces.empty(), "{}: not a SentencePiece model: it has no pieces", where);
  DSE_CHECK_USER(model.is_bpe, "{}: the SentencePiece model is not of type BPE; other types are not supported", where);
  return model;
}

SentencePieceModel read_sentencepiece_model(const std::filesystem::path& path) {
  return parse_sentencepiece_model(read_text(path), path.string());
}

SentencePieceForm sentencepiece_form(const std::string& tokenizer_class, const std::string& model_type) {
  if (tokenizer_class.empty() && model_type.starts_with("gemma")) return SentencePieceForm::gemma;
  // transformers gives these families no class of their own, whatever their tokenizer_config.json says.
  if (model_type == "mistral" || model_type == "phi3") return SentencePieceForm::plain;
  if (tokenizer_class == "LlamaTokenizer") return SentencePieceForm::llama;
  if (tokenizer_class == "GemmaTokenizer") return SentencePieceForm::gemma;
  return SentencePieceForm::plain;
}

void set_llama_parts(TokenizerJson& json, const TokenizerJson& config) {
  const bool prefix = value_or(config, "add_prefix_space", true);
  const char* scheme = !prefix ? "never" : value_or(config, "legacy", false) ? "always" : "first";
  TokenizerJson decoders = TokenizerJson::array({replace("▁", " "), part("ByteFallback"), part("Fuse")});
  if (prefix) decoders.push_back(part("Strip", {{"content", " "}, {"start", 1}, {"stop", 0}}));
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = part("Metaspace", {{"prepend_scheme", scheme}, {"split", false}});
  json["decoder"] = part("Sequence", {{"decoders", std::move(decoders)}});
  for (const char* on : {"fuse_unk", "byte_fallback"}) json["model"][on] = true;
  for (const char* off : {"unk_token", "ignore_merges"}) json["model"].erase(off);
}

TokenizerJson tokenizer_json_of(const SentencePieceModel& model, SentencePieceForm form, const TokenizerJson& config,
                                const std::string& where) {
  const bool llama = form == SentencePieceForm::llama;
  DSE_CHECK_USER(form != SentencePieceForm::plain || !model.rewrites_characters,
                 "{}: the SentencePiece model's table of normalizations is not supported: save a tokenizer.json",
                 where);
  TokenizerJson vocabulary = TokenizerJson::object(), added = TokenizerJson::array();
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePiece& piece = model.pieces[id];
    DSE_CHECK_USER(vocabulary.emplace(piece.text, id).second, "{}: two pieces are '{}'", where, piece.text);
    const bool control = piece.type == SentencePiece::control;
    if (!control && piece.type != SentencePiece::user_defined) continue;
    added.push_back({{"id", id}, {"content", piece.text}, {"normalized", false}, {"special", control}});
  }
  TokenizerJson bpe = part("BPE", {{"fuse_unk", true}, {"byte_fallback", model.byte_fallback}});
  if (form != SentencePieceForm::plain) bpe["byte_fallback"] = true;
  if (!llama && vocabulary.contains(model.unk)) bpe["unk_token"] = model.unk;
  bpe["merges"] = merges_of(model, vocabulary);
  bpe["vocab"] = std::move(vocabulary);

  TokenizerJson json{{"model", std::move(bpe)}, {"added_tokens", std::move(added)}};
  if (llama) {
    set_llama_parts(json, config);
    return json;
  }
  TokenizerJson decoders = TokenizerJson::array({replace("▁", " ")});
  if (json["model"]["byte_fallback"].get<bool>()) {
    decoders.push_back(part("ByteFallback"));
    decoders.push_back(part("Fuse"));
  }
  json["decoder"] = part("Sequence", {{"decoders", std::move(decoders)}});
  json["normalizer"] = replace(" ", "▁");
  if (form == SentencePieceForm::gemma) {
    json["pre_tokenizer"] = part("Split", {{"pattern", {{"String", " "}}}, {"behavior", "MergedWithPrevious"}});
  }
  return json;
}

TokenizerJson named_tokens_of(const SentencePieceModel& model, SentencePieceForm form) {
  if (form == SentencePieceForm::gemma) {
    return {{"unk_token", "<unk>"},
            {"bos_token", "<bos>"},
            {"eos_token", "<eos>"},
            {"pad_token", "<pad>"},
            {"mask_token", "<mask>"}};
  }
  if (form == SentencePieceForm::llama) return {{"unk_token", "<unk>"}, {"bos_token", "<s>"}, {"eos_token", "</s>"}};
  TokenizerJson names{{"unk_token", model.unk}};
  if (!model.bos.empty()) names["bos_token"] = model.bos;
  if (!model.eos.empty()) names["eos_token"] = model.eos;
  return names;
}

}  // namespace dsengine
