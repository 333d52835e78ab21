// How a conversation becomes text where the model has no chat template: DeepSpeed-Chat's form,
//
//   Human: How are you?\nAssistant: Fine.</s>\nHuman: …\nAssistant:
//
//   std::string prompt = chat_prompt({{"user", "How are you?"}});     // ends with "Assistant:"
//   std::string answer = chat_answer("Fine.");                        // " Fine.", the eos id follows it
//
// The end-of-sequence token belongs to the answer and is added as an id, never as text.
#pragma once
#include <string>
#include <vector>

namespace dsengine {

struct ChatMessage {
  std::string role, content;
  bool train = false;  // an assistant turn to imitate
};

// The text of one turn as it stands before an answer: "Human: …\n". Roles: user, system, assistant.
std::string chat_turn(const ChatMessage& message);
// Turns so far and the opening of the answer.
std::string chat_prompt(const std::vector<ChatMessage>& messages);
std::string chat_answer(const std::string& content);

}  // namespace dsengine
