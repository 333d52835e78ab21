#include "app/json_lines.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <span>

#include "base/check.h"
#include "files/output_file.h"

namespace dsengine {

namespace {
constexpr size_t kWindowBytes = size_t(4) << 20;  // of a window's lines as they are read
}  // namespace

bool has_non_finite(const Json& json) {
  if (json.is_number_float()) return !std::isfinite(json.get<double>());
  return json.is_structured() && std::any_of(json.begin(), json.end(), has_non_finite);
}

std::string json_line(const Json& json) {
  const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);  // escapes C0
  std::string line;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = [&](size_t k) { return k < text.size() ? uint8_t(text[k]) : uint8_t{0}; };
    const bool c1 = byte(i) == 0xC2 && byte(i + 1) >= 0x80 && byte(i + 1) < 0xA0;  // U+0080 to U+009F
    if (byte(i) == 0x7F || c1)
      line += fmt::format("\\u{:04x}", c1 ? byte(++i) : byte(i));
    else
      line += text[i];
  }
  return line;
}

void check_writable(const std::string& output) {
  namespace fs = std::filesystem;
  std::error_code none;
  if (output == "-") return;
  DSE_CHECK_USER(!fs::is_directory(output, none), "--output {}: is a directory: name a file", output);
  if (fs::exists(output, none)) {
    DSE_CHECK_USER(access(output.c_str(), W_OK) == 0, "--output {}: {}", output, std::strerror(errno));
    if (!fs::is_regular_file(output, none)) return;
  }
  // A file is replaced by one that is written beside it.
  const auto file = fs::weakly_canonical(fs::absolute(output), none);
  DSE_CHECK_USER(!none && access(file.parent_path().c_str(), W_OK) == 0, "--output {}: cannot write in {}: {}", output,
                 file.parent_path().string(), none ? none.message() : std::strerror(errno));
}

JsonLines::JsonLines(const std::string& input, const std::string& output)
    : input_name_(input), output_name_(output), input_(input) {
  check_writable(output);
  std::signal(SIGPIPE, SIG_IGN);  // a reader that goes away ends the program with its exit status
}

bool JsonLines::next(size_t most) {
  write();
  before_ += lines_.size();
  lines_.clear(), failed_.clear();
  size_t bytes = 0;
  for (std::string text; lines_.size() < most && bytes < kWindowBytes && input_.next(text);) {
    if (text.find_first_not_of(" \t\r") == text.npos) continue;
    bytes += text.size();
    lines_.emplace_back(), failed_.push_back(false);
    attempt(lines_.size() - 1, [&](Json& line) {
      const auto where = fmt::format("{}:{}", input_name_, input_.number());
      DSE_CHECK_USER(input_.whole(), "{}: a line of more than {} bytes: split it", where, LineReader::kLongest);
      line = parse_json(text, where);
      DSE_CHECK_USER(line.is_object(), "{}: expected a JSON object", where);
    });
  }
  DSE_CHECK_USER(before_ > 0 || !lines_.empty(), "{}: no JSON lines in it", input_name_);
  return !lines_.empty();
}

void JsonLines::fail(size_t i, const std::string& reason) {
  lines_[i] = {{"error", reason}};
  failed_[i] = true;
  ++failures_;
}

void JsonLines::attempt(size_t i, const std::function<void(Json&)>& body) {
  if (failed(i)) return;
  try {
    body(lines_[i]);
    DSE_CHECK_USER(!has_non_finite(lines_[i]), kNotFinite);
  } catch (const UserError& e) {
    fail(i, e.what());
  }
}

void JsonLines::write() {
  std::string text;
  for (const auto& line : lines_) text += json_line(line) + "\n";
  if (output_name_ == "-") return write_all(STDOUT_FILENO, std::as_bytes(std::span(text)), "standard output");
  if (!output_ && !lines_.empty()) output_.emplace(output_name_);
  if (output_) output_->write(text);
}

int JsonLines::finish() {
  if (output_) output_->commit();
  if (failures_ > 0)
    spdlog::error("{} of {} lines of {} failed: see \"error\" in the output", failures_, before_, input_name_);
  return failures_ > 0;
}

std::vector<dse::ChatTurn> turns_of(const Json& messages, const char* key) {
  DSE_CHECK_USER(messages.is_array() && !messages.empty(), "'{}' should be a list of {{role, content}}", key);
  std::vector<dse::ChatTurn> turns;
  for (const auto& m : messages) {
    DSE_CHECK_USER(
        m.is_object() && m.contains("role") && m["role"].is_string() && (m.contains("content") || m.size() > 1),
        "a message should be {{role, content}}, the role a string");
    dse::ChatTurn turn{m["role"], ""};
    Json fields = m;
    fields.erase("role");
    if (m.contains("content") && m["content"].is_string()) {
      turn.content = m["content"];
      fields.erase("content");
    } else if (!m.contains("content")) {
      fields["content"] = nullptr;  // a template is to find none
    }
    if (!fields.empty()) turn.fields = fields.dump();
    turns.push_back(std::move(turn));
  }
  return turns;
}

dse::ChatOptions chat_options_of(const Json& line) {
  const auto text = [&](const char* key) {
    return line.contains(key) && !line[key].is_null() ? line[key].dump() : std::string();
  };
  return {text("tools"), text("documents"), text("chat_template_kwargs")};
}

std::vector<int32_t> ids_of(const Json& line, int64_t vocabulary) {
  const auto& list = line["input_ids"];
  DSE_CHECK_USER(list.is_array(), "'input_ids' should be a list of token ids");
  std::vector<int32_t> ids;
  for (const auto& id : list) {
    DSE_CHECK_USER(id.is_number_integer() && id >= 0 && id < vocabulary,
                   "'input_ids': {} is no id of a vocabulary of {}", id.dump(), vocabulary);
    ids.push_back(id);
  }
  return ids;
}

std::string string_of(const Json& line, const char* key) {
  DSE_CHECK_USER(line[key].is_string(), "'{}' should be a string", key);
  return line[key];
}

namespace {

// The turns that "prompt" stands for.
std::vector<dse::ChatTurn> prompt_of(const Json& line) {
  if (line["prompt"].is_array()) return turns_of(line["prompt"], "prompt");
  return {{"user", string_of(line, "prompt")}};
}

// The text of "completion": a string, or the assistant's turn.
std::string completion_of(const Json& line) {
  if (!line["completion"].is_array()) return string_of(line, "completion");
  const auto turns = turns_of(line["completion"], "completion");
  DSE_CHECK_USER(turns.size() == 1 && turns[0].role == "assistant" && turns[0].fields.empty(),
                 "'completion' should be a string, or a list of one turn of the assistant with text alone");
  return turns[0].content;
}

}  // namespace

std::vector<int32_t> tokens_of(const Json& line, const dse::Text* text, Reading reading, int64_t vocabulary) {
  if (line.contains("input_ids")) return ids_of(line, vocabulary);
  DSE_CHECK_USER(text, "the model's directory has no tokenizer: give 'input_ids'");
  const bool whole = reading == Reading::whole;
  const auto options = chat_options_of(line);
  std::vector<int32_t> ids;
  if (line.contains("text")) {
    ids = text->encode(string_of(line, "text"));
  } else if (line.contains("messages")) {
    const auto turns = turns_of(line["messages"]);
    ids = whole ? text->conversation(turns, options) : text->prompt(turns, options);
  } else if (line.contains("prompt") && (!whole || line.contains("completion"))) {
    const auto turns = prompt_of(line);
    DSE_CHECK_USER(!whole || turns.back().role != "assistant", "the turns of 'prompt' end with an answer");
    ids = text->prompt(turns, options);
    const auto answer = whole ? text->answer(turns, completion_of(line), options) : dse::Tokens();
    ids.insert(ids.end(), answer.begin(), answer.end());
  } else {
    user_error(whole ? "expected 'input_ids', 'text', 'messages', or 'prompt' with 'completion'"
                     : "expected 'input_ids', 'text', 'messages' or 'prompt'");
  }
  for (const auto id : ids)
    DSE_CHECK_USER(id < vocabulary, "the tokenizer gave the id {}, the model's vocabulary is {}", id, vocabulary);
  return ids;
}

}  // namespace dsengine
