// tokenizer.model, and the tokenizers of each form that are made of it.
#include "fuzz.h"
#include "text/sentencepiece_model.h"
#include "tokens.h"

using namespace dsengine;

FUZZ(text) {
  const SentencePieceModel model = parse_sentencepiece_model(text, "input");
  for (const auto form : {SentencePieceForm::llama, SentencePieceForm::gemma, SentencePieceForm::plain}) {
    const TokenizerJson json = tokenizer_json_of(model, form, TokenizerJson::object(), "input");
    check_tokenizer(Tokenizer::from_json(json.dump(), "input"));
  }
}
