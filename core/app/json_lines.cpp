#include "app/json_lines.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iostream>
#include <iterator>

#include "base/check.h"
#include "files/atomic_directory.h"

namespace dsengine {

void check_writable(const std::string& output) {
  std::error_code none;
  if (output == "-" || std::filesystem::exists(output, none)) {
    DSE_CHECK_USER(output == "-" || access(output.c_str(), W_OK) == 0, "--output {}: {}", output, std::strerror(errno));
    return;
  }
  const auto folder = std::filesystem::absolute(output).parent_path();
  DSE_CHECK_USER(access(folder.c_str(), W_OK) == 0, "--output {}: cannot write in {}: {}", output, folder.string(),
                 std::strerror(errno));
}

JsonLines::JsonLines(const std::string& input, const std::string& output) : input_(input), output_(output) {
  check_writable(output);
  const std::string text = input == "-" ? std::string(std::istreambuf_iterator<char>(std::cin), {}) : read_text(input);
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line(text.data() + at, end - at);
    at = end + 1, ++number;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    lines_.emplace_back(), failed_.push_back(false);
    try {
      lines_.back() = parse_json(line, fmt::format("{}:{}", input, number));
      DSE_CHECK_USER(lines_.back().is_object(), "{}:{}: expected a JSON object", input, number);
    } catch (const UserError& e) {
      fail(lines_.size() - 1, e.what());
    }
  }
  DSE_CHECK_USER(!lines_.empty(), "{}: no JSON lines in it", input);
}

void JsonLines::fail(size_t i, const std::string& reason) {
  lines_[i] = {{"error", reason}};
  failed_[i] = true;
}

void JsonLines::attempt(size_t i, const std::function<void(Json&)>& body) {
  if (failed(i)) return;
  try {
    body(lines_[i]);
  } catch (const UserError& e) {
    fail(i, e.what());
  }
}

int JsonLines::finish() const {
  std::string text;
  for (const auto& line : lines_) text += line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  if (output_ == "-") {
    std::cout << text << std::flush;
    DSE_CHECK_USER(std::cout.good(), "standard output cannot be written to");
  } else {
    atomic_write_file(output_, text);
  }
  const auto failures = std::count(failed_.begin(), failed_.end(), true);
  if (failures > 0)
    spdlog::error("{} of {} lines of {} failed: see \"error\" in the output", failures, lines_.size(), input_);
  return failures > 0;
}

std::vector<dse::ChatTurn> turns_of(const Json& messages) {
  DSE_CHECK_USER(messages.is_array() && !messages.empty(), "'messages' should be a list of {{role, content}}");
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

std::vector<int32_t> tokens_of(const Json& line, const dse::Text* text, bool prompts, int64_t vocabulary) {
  std::vector<int32_t> ids;
  if (line.contains("input_ids")) {
    const auto& list = line["input_ids"];
    DSE_CHECK_USER(list.is_array() && !list.empty(), "'input_ids' should be a list of token ids");
    for (const auto& id : list) {
      DSE_CHECK_USER(id.is_number_integer() && id >= 0 && id < vocabulary,
                     "'input_ids': {} is no id of a vocabulary of {}", id.dump(), vocabulary);
      ids.push_back(id);
    }
    return ids;
  }
  DSE_CHECK_USER(text, "the model's directory has no tokenizer: give 'input_ids'");
  const auto text_of = [&](const char* key) {
    DSE_CHECK_USER(line[key].is_string(), "'{}' should be a string", key);
    return line[key].get<std::string>();
  };
  if (line.contains("text"))
    ids = text->encode(text_of("text"));
  else if (prompts && line.contains("messages"))
    ids = text->prompt(turns_of(line["messages"]), chat_options_of(line));
  else if (prompts && line.contains("prompt"))
    ids = text->prompt({{"user", text_of("prompt")}}, chat_options_of(line));
  else
    user_error(prompts ? "expected 'input_ids', 'text', 'prompt' or 'messages'" : "expected 'input_ids' or 'text'");
  DSE_CHECK_USER(!ids.empty(), "the text has no tokens");
  for (const auto id : ids)
    DSE_CHECK_USER(id < vocabulary, "the tokenizer gave the id {}, the model's vocabulary is {}", id, vocabulary);
  return ids;
}

}  // namespace dsengine
