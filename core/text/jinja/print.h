// How Python prints values: str, repr and json.dumps.
//
//   str(list, budget)->bytes;                                 // "['a', 2]"
//   to_json(list, {.indent = 2}, budget)->bytes;
#pragma once
#include <string>

#include "text/jinja/text.h"
#include "text/jinja/value.h"

namespace dsengine::jinja {

TextPtr str(const Value& value, Budget& budget);  // "" for what is undefined
void add_repr(const Value& value, TextBuilder& out, Budget& budget);
std::string shown_float(double number);  // as repr has it

struct JsonStyle {
  int indent = -1;  // below 0: on one line
  bool ascii = false, sorted = false;
  std::string item_separator = {}, key_separator = {};  // "": the usual
};
TextPtr to_json(const Value& value, const JsonStyle& style, Budget& budget);

}  // namespace dsengine::jinja
