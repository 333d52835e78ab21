// Commands over JSON lines: each input object gives one output object, in order. A line that cannot be done
// gives {"error": …} in its place; the others are done, and the command exits non-zero at the end.
//
//   JsonLines lines(options.input);
//   lines.attempt(i, [&](Json& line) { line["reward"] = …; });
//   return lines.finish(options.output);              // the exit status
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "rl/examples.h"

namespace dsengine {

class JsonLines {
 public:
  // "-" is standard input. An unreadable or empty file is a UserError; a malformed line is that line's error.
  explicit JsonLines(const std::string& input);

  size_t size() const { return lines_.size(); }
  bool failed(size_t i) const { return lines_[i].contains("error"); }
  const Json& operator[](size_t i) const { return lines_[i]; }
  // Runs `body` on line i unless it failed before; a UserError becomes its error.
  void attempt(size_t i, const std::function<void(Json&)>& body);
  // Writes all lines ("-": standard output) as a whole, and says how many failed. 0 or 1.
  int finish(const std::string& output) const;

 private:
  std::string input_;
  std::vector<Json> lines_;
};

// Token ids of a line: "input_ids" (checked against the vocabulary), "text" (with special tokens), and, where a
// chat's form is given, "messages" or "prompt" (one user turn) in it. Without a tokenizer (null): ids alone.
std::vector<int32_t> tokens_of(const Json& line, const Tokenizer* tokenizer, const ChatFormat* chat,
                               int64_t vocabulary);

// Text of a list of {role, content}, with the opening of the answer.
std::string render_messages(const Json& messages, const ChatFormat& chat);

}  // namespace dsengine
