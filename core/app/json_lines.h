// Commands over JSON lines: each input object gives one output object, in order. A line that cannot be done
// gives {"error": …} in its place; the others are done, and the command exits non-zero at the end.
//
//   JsonLines lines(options.input, options.output);
//   while (lines.next())                              // a window of lines: memory does not grow with the input
//     for (size_t i = 0; i < lines.size(); ++i)
//       lines.attempt(i, [&](Json& line) { line["reward"] = …; });
//   return lines.finish();                            // the exit status
#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/engine.h"
#include "files/atomic_directory.h"
#include "files/line_reader.h"

namespace dsengine {

// Of NaN and infinity among a model's results.
constexpr const char* kNotFinite =
    "the model's numbers are not finite: its weights hold NaN or infinity, or are too large";

// Whether a number in it is no number or infinite, which JSON cannot say: it would be written as null.
bool has_non_finite(const Json& json);

// A value on one line. Control characters are escaped, C1 and delete too, so that a terminal shows them and obeys none.
std::string json_line(const Json& json);

class JsonLines {
 public:
  static constexpr size_t kWindow = 4096;  // lines

  // "-" is standard input and output. An input that cannot be opened, or a place that cannot be written to, is a
  // UserError at once; a malformed line is that line's error.
  JsonLines(const std::string& input, const std::string& output);

  // Writes the lines of the window before, and reads the next: `most` lines, fewer where their texts are long. false at
  // the input's end. A failed read, and an input without lines, are UserErrors.
  bool next(size_t most = kWindow);
  // Of the window.
  size_t size() const { return lines_.size(); }
  bool failed(size_t i) const { return failed_[i]; }
  const Json& operator[](size_t i) const { return lines_[i]; }
  // Line i's place in the whole input, from 0; blank lines do not count.
  uint64_t number(size_t i) const { return before_ + i; }
  // Runs `body` on line i unless it failed before; a UserError becomes its error, and so do numbers that are not
  // finite.
  void attempt(size_t i, const std::function<void(Json&)>& body);
  // After the last window: a file appears as a whole now, or is replaced; says how many lines failed. 0 or 1.
  int finish();

 private:
  void fail(size_t i, const std::string& reason);
  void write();

  std::string input_name_, output_name_;
  LineReader input_;
  std::optional<AtomicFile> output_;  // from the first window on; none: standard output
  std::vector<Json> lines_;
  std::vector<bool> failed_;
  uint64_t before_ = 0, failures_ = 0;  // before_: lines of the windows before
};

// UserError where --output names a place that cannot be written to; "-" is standard output.
void check_writable(const std::string& output);

// What a line's tokens are: of "input_ids", else "text" (with special tokens), else "messages", else "prompt" (a user's
// turn, or a list of turns), which are written as the model's chat template says.
enum class Reading {
  question,  // messages and prompt up to the opening of the answer
  whole      // messages, and prompt with "completion", as training reads them: the answer's end token included
};
// The ids, all of the vocabulary; none of an empty text. Without a tokenizer (null): input_ids alone.
std::vector<int32_t> tokens_of(const Json& line, const dse::Text* text, Reading reading, int64_t vocabulary);
// "input_ids" alone.
std::vector<int32_t> ids_of(const Json& line, int64_t vocabulary);
// The string at `key`.
std::string string_of(const Json& line, const char* key);

// A list of {role, content, …}, which the line has as `key`.
std::vector<dse::ChatTurn> turns_of(const Json& messages, const char* key = "messages");
// What its chat template may read besides: "tools", "documents", "chat_template_kwargs".
dse::ChatOptions chat_options_of(const Json& line);

}  // namespace dsengine
