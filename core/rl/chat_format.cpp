#include "rl/chat_format.h"

#include "base/check.h"

namespace dsengine {

std::string chat_turn(const ChatMessage& message) {
  if (message.role == "user" || message.role == "human") return "Human: " + message.content + "\n";
  if (message.role == "assistant") return "Assistant:" + chat_answer(message.content) + "\n";
  if (message.role == "system") return message.content + "\n";
  throw UserError("a message has the role '" + message.role + "': expected system, user or assistant");
}

std::string chat_prompt(const std::vector<ChatMessage>& messages) {
  std::string text;
  for (const auto& message : messages) text += chat_turn(message);
  return text + "Assistant:";
}

std::string chat_answer(const std::string& content) { return " " + content; }

}  // namespace dsengine
