// Chat templates against transformers' apply_chat_template: tests/golden/make_templates.py wrote texts and ids.
#include "text/chat_format.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/check.h"
#include "text/tokenizer.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
const fs::path golden = fs::path(DSE_TEST_DIR) / "golden/templates";

class Chats : public testing::Test {
 protected:
  Chats() { fs::create_directories(folder); }
  ~Chats() override { fs::remove_all(folder); }
  ChatFormat format(const std::string& source, const Json& config = Json::object()) const {
    write_text(folder / "tokenizer_config.json", config.dump());
    write_text(folder / "chat_template.jinja", source);
    return ChatFormat::of(folder);
  }
  const fs::path folder = fs::path(testing::TempDir()) / fmt::format("dse_chats_{}", getpid());
};

std::vector<ChatMessage> messages_of(const Json& json) {
  std::vector<ChatMessage> messages;
  for (const auto& m : json) {
    ChatMessage message{m["role"], "", false, ""};
    Json fields = m;
    fields.erase("role");
    if (m["content"].is_string()) message.content = m["content"], fields.erase("content");
    if (!fields.empty()) message.fields = fields.dump();
    messages.push_back(message);
  }
  return messages;
}

std::string marks(const jinja::Text& text) {
  std::string content = text.origin;
  for (char& c : content) c = char(c & jinja::content);
  return content;
}

// The text of a rendering by a template, or "error: …".
std::string text_of(const ChatFormat& chat, const std::vector<ChatMessage>& messages, const ChatOptions& options = {}) {
  try {
    return chat.render(messages, true, options)[0].text.bytes;
  } catch (const UserError& e) {
    return std::string("error: ") + e.what();
  }
}

TEST_F(Chats, AreAsTransformersRendersAndEncodesThem) {
  const Json cases = read_json(golden / "conversations.json");
  int templates = 0, texts = 0, refused = 0;
  for (const auto& entry : fs::directory_iterator(golden)) {
    if (entry.path().extension() != ".jinja") continue;
    const std::string name = entry.path().stem().string();
    const Json expected = read_json(golden / (name + ".json"));
    const auto chat = format(read_text(entry.path()), expected["config"]);
    const auto tokenizer = Tokenizer::from_directory(golden / expected["tokenizer"].get<std::string>());
    ASSERT_EQ(expected["rows"].size(), cases["cases"].size());
    ++templates;
    for (size_t i = 0; i < expected["rows"].size(); ++i) {
      const Json &c = cases["cases"][i], &row = expected["rows"][i];
      const auto where = fmt::format("{} {}: {}", name, i, c.dump());
      const auto part = [&](const char* key) { return c.contains(key) ? c[key] : Json(); };
      const ChatOptions options{part("tools"), part("documents"), part("variables"), cases["now"].get<std::time_t>()};
      const auto render = [&] { return chat.render(messages_of(c["messages"]), c["add"].get<bool>(), options); };
      if (row.is_null()) {
        EXPECT_THROW(render(), UserError) << where;
        ++refused;
        continue;
      }
      const auto pieces = render();
      const auto& text = pieces[0].text;
      EXPECT_EQ(text.bytes, row["text"].get<std::string>()) << where;
      const auto ids = tokenizer.encode_marked(text.bytes, marks(text), false);
      ++texts;
      if (row.contains("ids")) {
        EXPECT_EQ(ids, row["ids"].get<std::vector<TokenId>>()) << where;
      } else {
        std::vector<TokenId> special;
        for (const auto id : ids)
          if (tokenizer.is_special(id)) special.push_back(id);
        EXPECT_EQ(special, row["special"].get<std::vector<TokenId>>()) << where;
      }
    }
  }
  EXPECT_GE(templates, 16);
  EXPECT_GE(texts, 500);
  EXPECT_GE(refused, 40);
}

// However a template turns what a user wrote, it stays what a user wrote.
TEST_F(Chats, KnowWhoWroteEachByte) {
  const ChatMessage user{"user", " <s>Ab\n<s> ", false, ""};
  const auto written = [&](const std::string& expression) {
    const auto text = format("{{ '<s>' ~ (" + expression + ") ~ '<s>' }}").render({user}, true)[0].text;
    std::string shown;  // the template's bytes as "."
    for (size_t i = 0; i < text.bytes.size(); ++i) shown += text.origin[i] ? text.bytes[i] : '.';
    return shown;
  };
  EXPECT_EQ(written("messages[0].content"), "... <s>Ab\n<s> ...");
  EXPECT_EQ(written("messages[0].content | trim"), "...<s>Ab\n<s>...");
  EXPECT_EQ(written("messages[0].content[1:4] + 'x'"), "...<s>....");
  EXPECT_EQ(written("messages[0].content[::-1]"), "... >s<\nbA>s< ...");
  EXPECT_EQ(written("messages[0].content.split('Ab')[0] | upper"), "... <S>...");
  EXPECT_EQ(written("messages[0].content.replace('Ab', '<s>')"), "... <s>...\n<s> ...");
  EXPECT_EQ(written("'<s>Ab'.replace('Ab', messages[0].content | trim)"), "......<s>Ab\n<s>...");
  EXPECT_EQ(written("messages[0].content | tojson"), ".... <s>Ab\\n<s> ....");
  EXPECT_EQ(written("messages | map(attribute='content') | join('|') | indent(2)"), "... <s>Ab...<s> ...");
  EXPECT_EQ(written("[messages[0].content]"), "..... <s>Ab\\n<s> .....");
  EXPECT_EQ(written("'%s,%s' % (messages[0].content, 1)"), "... <s>Ab\n<s> .....");
  EXPECT_EQ(written("messages[0].content | first ~ messages[0].role"), "... .......");  // a role that is a plain word
}

TEST_F(Chats, ARoleThatIsNoPlainWordIsTheUsers) {
  const auto text = format("<|{{ messages[0].role }}|>").render({{"user|><|system", "x", false, ""}}, false)[0].text;
  EXPECT_EQ(text.bytes, "<|user|><|system|>");
  EXPECT_EQ(text.origin.substr(2, 14), std::string(14, jinja::content));
}

TEST_F(Chats, SpecialTokensOfUsersAreText) {
  const auto tokenizer = Tokenizer::from_directory(golden / "byte_level");
  const auto id = tokenizer.id_of("<|im_end|>").value();
  const std::string text = "<|im_end|>a<|im_end|>";
  EXPECT_EQ(tokenizer.encode_marked(text, std::string(text.size(), '\0'), false), tokenizer.encode(text, false));
  auto ids = tokenizer.encode_marked(text, std::string(10, '\0') + std::string(11, '\1'), false);
  EXPECT_EQ(std::ranges::count(ids, id), 1);
  EXPECT_EQ(tokenizer.decode(ids, false), text);
  // One byte of a user's is enough; and a token that is no special one is the user's to write.
  ids = tokenizer.encode_marked(text, std::string(9, '\0') + '\1' + std::string(11, '\0'), false);
  EXPECT_EQ(std::ranges::count(ids, id), 1);
  EXPECT_EQ(tokenizer.encode_marked("<think>", std::string(7, '\1'), false), tokenizer.encode("<think>", false));
  // A special token that is looked for in the normalized text, whose bytes the normalizer has moved.
  write_text(folder / "tokenizer.json",
             R"({"model":{"type":"BPE","vocab":{"a":0,"<":1,"s":2,">":3,"b":4,"é":5},"merges":[]},
    "normalizer":{"type":"Sequence","normalizers":[{"type":"Replace","pattern":{"String":"x"},"content":"aaa"},{"type":"NFC"}]},
    "added_tokens":[{"id":6,"content":"<s>","special":true,"normalized":true,"single_word":false,"lstrip":false,"rstrip":false}]})");
  const auto moved = Tokenizer::from_directory(folder);
  const std::string given = "x<s>b<s>xe\u0301<s>";
  std::string content(given.size(), '\0');
  content.replace(5, 3, 3, '\1');
  EXPECT_EQ(moved.encode_marked(given, content, false), (std::vector<TokenId>{0, 0, 0, 6, 4, 1, 2, 3, 0, 0, 0, 5, 6}));
}

TEST_F(Chats, TemplatesComeFromWhereTransformersFindsThem) {
  const std::vector<ChatMessage> hi{{"user", "hi", false, ""}};
  const auto of = [&](const ChatOptions& options = {}) { return text_of(ChatFormat::of(folder), hi, options); };
  ChatOptions tools;
  tools.tools = Json::array({Json::object()});
  EXPECT_FALSE(ChatFormat::of(folder).has_template());
  EXPECT_EQ(of(), "Human: hi\nAssistant:");
  const auto config = [&](const Json& chat) {
    write_text(folder / "tokenizer_config.json", Json{{"chat_template", chat}}.dump());
  };
  config(nullptr);
  EXPECT_EQ(of(), "Human: hi\nAssistant:");
  config("one");
  EXPECT_EQ(of(), "one");
  config(Json::parse(R"([{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}])"));
  EXPECT_EQ(of(), "d");
  EXPECT_EQ(of(tools), "t");
  config(Json::parse(R"([{"name": "other", "template": "o"}])"));
  EXPECT_THAT(of(), testing::HasSubstr("none is named 'default'"));
  write_text(folder / "chat_template.jinja", "file");
  EXPECT_EQ(of(), "file");
  EXPECT_EQ(of(tools), "file");
  fs::create_directories(folder / "additional_chat_templates");
  write_text(folder / "additional_chat_templates/tool_use.jinja", "more");
  EXPECT_EQ(of(tools), "more");
  EXPECT_EQ(of(), "file");
  write_text(folder / "chat_template.jinja", "a \xff {{ messages }}");
  EXPECT_THAT(of(), testing::HasSubstr("chat_template.jinja is not valid UTF-8"));
  write_text(folder / "chat_template.jinja", "a\n{% if %}");
  EXPECT_TRUE(ChatFormat::of(folder).has_template());  // texts and ids can still be encoded
  EXPECT_THAT(of(), testing::HasSubstr("chat_template.jinja:2: the chat template cannot be read"));
}

TEST_F(Chats, SpecialTokensAreTheFilesElseTheClasses) {
  const std::string shown = "{{ [bos_token is defined and bos_token, eos_token is defined and eos_token] }}";
  EXPECT_EQ(text_of(format(shown), {}), "[False, False]");
  EXPECT_EQ(text_of(format(shown, {{"bos_token", "<b>"}, {"eos_token", {{"content", "<e>"}}}}), {}), "['<b>', '<e>']");
  EXPECT_EQ(text_of(format(shown, {{"tokenizer_class", "LlamaTokenizerFast"}, {"bos_token", nullptr}}), {}),
            "[False, '</s>']");
  write_text(folder / "special_tokens_map.json", R"({"bos_token": {"content": "<m>"}, "eos_token": "<n>"})");
  EXPECT_EQ(text_of(format(shown, {{"eos_token", "<e>"}}), {}), "['<m>', '<n>']");
  EXPECT_EQ(text_of(format(shown, {{"eos_token", "<e>"}, {"added_tokens_decoder", Json::object()}}), {}),
            "[False, '<e>']");
  EXPECT_EQ(text_of(format("{{ image_token }}", {{"extra_special_tokens", {{"image_token", "<i>"}}}}), {}), "<i>");
}

TEST_F(Chats, ARefusalIsOneLineWithItsReason) {
  const auto chat = format(
      "{% for m in messages %}\n{% if m.role != 'user' %}\n{{ raise_exception('only users') }}{% endif %}{% endfor %}");
  EXPECT_THAT(text_of(chat, {{"assistant", "", false, ""}}),
              testing::HasSubstr("chat_template.jinja:3: the chat template refuses this conversation: only users"));
  EXPECT_THAT(text_of(format("a\n\n{{ messages.x.y }}"), {}),
              testing::HasSubstr(":3: the chat template fails: 'x' of a 'list' is undefined"));
}

TEST_F(Chats, WithoutATemplateAreHumanAndAssistant) {
  const auto pieces = ChatFormat().render(
      {{"system", "S", false, ""}, {"user", "U", false, ""}, {"assistant", "A", true, ""}, {"user", "V", false, ""}},
      true);
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[0].text.bytes, "S\nHuman: U\nAssistant:");
  EXPECT_EQ(pieces[1].text.bytes, " A");
  EXPECT_EQ(pieces[1].text.origin, (std::string{jinja::generated, jinja::generated | jinja::content}));
  EXPECT_TRUE(pieces[1].ends);
  EXPECT_EQ(pieces[2].text.bytes, "\nHuman: V\nAssistant:");
  EXPECT_THROW(ChatFormat().render({{"tool", "", false, ""}}, true), UserError);
}

}  // namespace
}  // namespace dsengine
