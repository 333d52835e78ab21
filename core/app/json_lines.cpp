#include "app/json_lines.h"

#include <spdlog/spdlog.h>

#include <iostream>
#include <iterator>

#include "base/check.h"
#include "files/atomic_directory.h"

namespace dsengine {

JsonLines::JsonLines(const std::string& input) : input_(input) {
  const std::string text = input == "-" ? std::string(std::istreambuf_iterator<char>(std::cin), {}) : read_text(input);
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line(text.data() + at, end - at);
    at = end + 1, ++number;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    try {
      lines_.push_back(parse_json(line, fmt::format("{}:{}", input, number)));
      DSE_CHECK_USER(lines_.back().is_object(), "{}:{}: expected a JSON object", input, number);
    } catch (const UserError& e) {
      if (!lines_.empty() && !lines_.back().is_object()) lines_.pop_back();
      lines_.push_back({{"error", e.what()}});
    }
  }
  DSE_CHECK_USER(!lines_.empty(), "{}: no JSON lines in it", input);
}

void JsonLines::attempt(size_t i, const std::function<void(Json&)>& body) {
  if (failed(i)) return;
  try {
    body(lines_[i]);
  } catch (const UserError& e) {
    lines_[i] = {{"error", e.what()}};
  }
}

int JsonLines::finish(const std::string& output) const {
  std::string text;
  size_t failures = 0;
  for (const auto& line : lines_) {
    failures += line.contains("error");
    text += line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  if (output == "-")
    std::cout << text << std::flush;
  else
    atomic_write_file(output, text);
  if (failures > 0)
    spdlog::error("{} of {} lines of {} failed: see \"error\" in the output", failures, lines_.size(), input_);
  return failures > 0;
}

std::string render_messages(const Json& messages, const ChatFormat& chat) {
  DSE_CHECK_USER(messages.is_array() && !messages.empty(), "'messages' should be a list of {{role, content}}");
  std::vector<ChatMessage> turns;
  for (const auto& m : messages) {
    DSE_CHECK_USER(m.is_object() && m.contains("role") && m["role"].is_string() && m.contains("content") &&
                       m["content"].is_string(),
                   "a message should be {{role, content}}, both strings");
    turns.push_back({m["role"], m["content"], false});
  }
  return chat.prompt(turns);
}

std::vector<int32_t> tokens_of(const Json& line, const Tokenizer* tokenizer, const ChatFormat* chat,
                               int64_t vocabulary) {
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
  DSE_CHECK_USER(tokenizer, "the model's directory has no tokenizer: give 'input_ids'");
  const auto text_of = [&](const char* key) {
    DSE_CHECK_USER(line[key].is_string(), "'{}' should be a string", key);
    return line[key].get<std::string>();
  };
  if (line.contains("text"))
    ids = tokenizer->encode(text_of("text"));
  else if (chat && line.contains("messages"))
    ids = tokenizer->encode(render_messages(line["messages"], *chat));
  else if (chat && line.contains("prompt"))
    ids = tokenizer->encode(chat->prompt({{"user", text_of("prompt"), false}}));
  else
    user_error(chat ? "expected 'input_ids', 'text', 'prompt' or 'messages'" : "expected 'input_ids' or 'text'");
  DSE_CHECK_USER(!ids.empty(), "the text has no tokens");
  for (const auto id : ids)
    DSE_CHECK_USER(id < vocabulary, "the tokenizer gave the id {}, the model's vocabulary is {}", id, vocabulary);
  return ids;
}

}  // namespace dsengine
