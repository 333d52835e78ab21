// How a conversation becomes text. Where the model has no chat template: DeepSpeed-Chat's form,
//
//   Human: How are you?\nAssistant: Fine.</s>\nHuman: …\nAssistant:
//
//   ChatFormat chat = ChatFormat::of("models/tiny");
//   std::string prompt = chat.prompt({{"user", "How are you?"}});     // ends with "Assistant:"
//   std::string answer = chat.answer("Fine.");                        // " Fine.", the eos id follows it
//
// A model that has a template was taught another form; templates are not read yet, so that such a model's
// conversations are refused rather than rendered wrongly. The end-of-sequence token belongs to the answer and
// is added as an id, never as text.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace dsengine {

struct ChatMessage {
  std::string role, content;
  bool train = false;  // an assistant turn to imitate
};

class ChatFormat {
 public:
  // The form of a Hugging Face directory: chat_template.jinja, or "chat_template" of tokenizer_config.json.
  static ChatFormat of(const std::filesystem::path& tokenizer_directory);

  // The text of one turn as it stands before an answer: "Human: …\n". Roles: user, system, assistant.
  std::string turn(const ChatMessage& message) const;
  // Turns so far and the opening of the answer.
  std::string prompt(const std::vector<ChatMessage>& messages) const;
  // The same in pieces: after each but the last stands the end-of-sequence token of an assistant's turn.
  std::vector<std::string> prompt_pieces(const std::vector<ChatMessage>& messages) const;
  std::string answer(const std::string& content) const;

 private:
  void require_readable() const;
  std::string template_in_;  // the file whose template this engine cannot read; "": there is none
};

}  // namespace dsengine
