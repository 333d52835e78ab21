// How a conversation becomes text: by the model's chat template, as transformers' apply_chat_template does it; where it
// has none, in DeepSpeed-Chat's form,
//
//   Human: How are you?\nAssistant: Fine.</s>\nHuman: …\nAssistant:
//
//   ChatFormat chat = ChatFormat::of("models/tiny");
//   std::vector<ChatPiece> pieces = chat.render({{"user", "How are you?"}}, /*answer_next=*/true);
//
// This is the one place that knows where answers end: a template writes its token for that, the form's pieces say where
// the end-of-sequence token stands. Texts know of each byte who wrote it (jinja::content, jinja::generated).
#pragma once
#include <ctime>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "text/jinja/origin.h"

namespace dsengine {

struct ChatMessage {
  std::string role, content;
  bool train = false;       // an assistant turn to imitate
  std::string fields = {};  // a JSON object of what else a template may read: "tool_calls", …; or of another content
};

// What a template may read beside the messages.
struct ChatOptions {
  Json tools = {}, documents = {};      // lists; null: none
  Json variables = {};                  // an object: "enable_thinking", …
  std::optional<std::time_t> now = {};  // what strftime_now shows; absent: the clock's
};

struct ChatPiece {
  jinja::Text text;   // is encoded whole
  bool ends = false;  // the end-of-sequence token follows it, of the same author
};

class ChatFormat {
 public:
  // The form of a Hugging Face directory: chat_template.jinja and additional_chat_templates/, else "chat_template" of
  // tokenizer_config.json. A template that cannot be read is an error when a conversation is rendered.
  static ChatFormat of(const std::filesystem::path& tokenizer_directory);

  bool has_template() const { return templates_ != nullptr; }
  // Conversations become the same texts.
  bool is_like(const ChatFormat& other) const;
  // The template says itself what the assistant writes, or the form does.
  bool marks_answers() const;

  // answer_next: the opening of an answer comes last. What the template refuses is a UserError.
  std::vector<ChatPiece> render(const std::vector<ChatMessage>& messages, bool answer_next,
                                const ChatOptions& options = {}) const;

 private:
  struct Templates;
  std::shared_ptr<const Templates> templates_;
};

}  // namespace dsengine
