// tokenizer.json, and what the tokenizer that it makes does to texts.
#include "fuzz.h"
#include "tokens.h"

using namespace dsengine;

FUZZ(text) { check_tokenizer(Tokenizer::from_json(text, "input")); }
