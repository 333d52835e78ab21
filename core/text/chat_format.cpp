#include "text/chat_format.h"

#include "base/check.h"
#include "base/json.h"

namespace dsengine {

ChatFormat ChatFormat::of(const std::filesystem::path& directory) {
  ChatFormat format;
  const auto jinja = directory / "chat_template.jinja", config = directory / "tokenizer_config.json";
  if (std::filesystem::exists(jinja)) {
    format.template_in_ = jinja.string();
  } else if (std::filesystem::exists(config)) {
    const Json json = read_json(config);
    if (json.is_object() && json.contains("chat_template") && !json["chat_template"].is_null())
      format.template_in_ = config.string();
  }
  return format;
}

void ChatFormat::require_readable() const {
  DSE_CHECK_USER(template_in_.empty(),
                 "{} has a chat template, which this version cannot read: give whole texts or token ids instead of "
                 "prompts and messages, or remove the template to use the form \"Human: … Assistant:\"",
                 template_in_);
}

std::string ChatFormat::turn(const ChatMessage& message) const {
  require_readable();
  if (message.role == "user" || message.role == "human") return "Human: " + message.content + "\n";
  if (message.role == "assistant") return "Assistant:" + answer(message.content) + "\n";
  if (message.role == "system") return message.content + "\n";
  throw UserError("a message has the role '" + message.role + "': expected system, user or assistant");
}

std::vector<std::string> ChatFormat::prompt_pieces(const std::vector<ChatMessage>& messages) const {
  std::vector<std::string> pieces(1);
  for (const auto& message : messages) {
    std::string text = turn(message);
    if (message.role != "assistant") {
      pieces.back() += text;
      continue;
    }
    text.pop_back();  // the line's end comes after the token
    pieces.back() += text;
    pieces.emplace_back("\n");
  }
  pieces.back() += "Assistant:";
  return pieces;
}

std::string ChatFormat::prompt(const std::vector<ChatMessage>& messages) const {
  std::string text;
  for (const auto& piece : prompt_pieces(messages)) text += piece;
  return text;
}

std::string ChatFormat::answer(const std::string& content) const {
  require_readable();
  return " " + content;
}

}  // namespace dsengine
