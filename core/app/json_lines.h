// Commands over JSON lines: each input object gives one output object, in order. A line that cannot be done
// gives {"error": …} in its place; the others are done, and the command exits non-zero at the end.
//
//   JsonLines lines(options.input, options.output);
//   lines.attempt(i, [&](Json& line) { line["reward"] = …; });
//   return lines.finish();              // the exit status
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/engine.h"

namespace dsengine {

class JsonLines {
 public:
  // "-" is standard input and output. An unreadable or empty file, or a place that cannot be written to, is a UserError
  // at once; a malformed line is that line's error.
  JsonLines(const std::string& input, const std::string& output);

  size_t size() const { return lines_.size(); }
  bool failed(size_t i) const { return failed_[i]; }
  const Json& operator[](size_t i) const { return lines_[i]; }
  // Runs `body` on line i unless it failed before; a UserError becomes its error.
  void attempt(size_t i, const std::function<void(Json&)>& body);
  // Writes all lines as a whole, and says how many failed. 0 or 1.
  int finish() const;

 private:
  void fail(size_t i, const std::string& reason);

  std::string input_, output_;
  std::vector<Json> lines_;
  std::vector<bool> failed_;
};

// UserError where --output names a place that cannot be written to; "-" is standard output.
void check_writable(const std::string& output);

// Token ids of a line: "input_ids" (checked against the vocabulary), "text" (with special tokens), and, where
// `prompts`, "messages" or "prompt" (one user turn) in the chat's form. Without a tokenizer (null): ids alone.
std::vector<int32_t> tokens_of(const Json& line, const dse::Text* text, bool prompts, int64_t vocabulary);

// The line's "messages": a list of {role, content, …}.
std::vector<dse::ChatTurn> turns_of(const Json& messages);
// What its chat template may read besides: "tools", "documents", "chat_template_kwargs".
dse::ChatOptions chat_options_of(const Json& line);

}  // namespace dsengine
