// A chat template, rendered with a small conversation.
#include "fuzz.h"
#include "text/jinja/jinja.h"
#include "text/jinja/parser.h"
#include "text/utf8.h"

using namespace dsengine;

FUZZ(source) {
  static const Json messages = Json::parse(R"([
    {"role": "system", "content": "Be brief."}, {"role": "user", "content": " H\u00e9 "},
    {"role": "assistant", "content": "",
     "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.5, null]}}}]}])");
  static const Json tools = Json::parse(R"([{"type": "function", "function": {"name": "f", "parameters": {}}}])");
  if (!is_valid_utf8(source)) return;
  const jinja::Text text = jinja::render(jinja::parse(source, "input"),
                                         {{"messages", jinja::value_of(messages, jinja::content)},
                                          {"tools", jinja::value_of(tools, jinja::scaffold)},
                                          {"add_generation_prompt", true},
                                          {"bos_token", jinja::text("<s>", jinja::scaffold)}},
                                         0);
  if (text.origin.size() != text.bytes.size() || !is_valid_utf8(text.bytes)) std::abort();
}
