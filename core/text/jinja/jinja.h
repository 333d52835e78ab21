// Chat templates: Jinja as transformers runs it (trim_blocks, lstrip_blocks, loop controls, {% generation %}, a
// sandbox).
//
//   jinja::Template t = jinja::parse(source, "models/x/chat_template.jinja");
//   jinja::Text r = jinja::render(t, {{"messages", jinja::value_of(messages, jinja::content)}});
//   r.bytes, r.origin;              // each byte: of the template, or of the data
//
// Any template ends, in bounded time and memory: with a text, or with one UserError that names the template's line.
//
// The way of a template through this folder:
//   source     lexer → tokens                 lexer.h
//   tokens     statements, expressions,       parser.h: statements.cpp, expressions.cpp, postfix.cpp
//              postfix → a tree               ast.h
//   the tree   interpreter (statements),      interpreter.h: interpreter.cpp, evaluate.cpp
//              evaluate (expressions)
//   values     operators, attributes,         operations.h: operations, attributes, methods, filters, list_filters,
//              methods, filters, tests        tests .cpp
//              what they are, their print     value.h, text.h, origin.h: value.cpp, print.cpp, text.cpp
#pragma once
#include <ctime>
#include <optional>

#include "base/json.h"
#include "text/jinja/ast.h"

namespace dsengine::jinja {

// Of JSON data; its texts and keys have this origin.
Value value_of(const Json& json, char origin);

// now: what strftime_now shows; absent: the clock's.
Text render(const Template& from, const Named& variables, std::optional<std::time_t> now = std::nullopt);

}  // namespace dsengine::jinja
