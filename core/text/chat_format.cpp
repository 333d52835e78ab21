#include "text/chat_format.h"

#include <algorithm>
#include <map>

#include "base/check.h"
#include "base/printable.h"
#include "base/regular_file.h"
#include "text/jinja/jinja.h"
#include "text/side_files.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

struct Source {
  std::string text, where;
};

// By name, as transformers finds them: files win over tokenizer_config.json.
std::map<std::string, Source> read_templates(const fs::path& directory, const Json& config) {
  std::map<std::string, Source> found;
  const fs::path single = directory / "chat_template.jinja", more = directory / "additional_chat_templates";
  if (file_exists(single)) found["default"] = {read_text(single), single.string()};
  if (fs::is_directory(more))
    for (const auto& entry : fs::directory_iterator(more))
      if (entry.path().extension() == ".jinja")
        found[entry.path().stem().string()] = {read_text(entry.path()), entry.path().string()};
  if (!found.empty() || !config.is_object() || !config.contains("chat_template")) return found;
  const std::string where = (directory / "tokenizer_config.json").string() + ": chat_template";
  const Json& given = config["chat_template"];
  if (given.is_string()) found["default"] = {given, where};
  DSE_CHECK_USER(given.is_string() || given.is_array() || given.is_null(),
                 "{} should be a text, or a list of {{name, template}}, is {}", where, given.dump());
  if (!given.is_array()) return found;
  for (const auto& item : given) {
    DSE_CHECK_USER(item.is_object() && item.contains("name") && item["name"].is_string() && item.contains("template") &&
                       item["template"].is_string(),
                   "{} should be a text, or a list of {{name, template}}", where);
    found[item["name"].get<std::string>()] = {item["template"],
                                              fmt::format("{} '{}'", where, item["name"].get<std::string>())};
  }
  return found;
}

// A role that is a plain word is the template's business: "<|" + role + "|>" is a token there.
char origin_of_role(const std::string& role) {
  const auto is_plain = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-'; };
  return std::ranges::all_of(role, is_plain) ? jinja::scaffold : jinja::content;
}

// As transformers hands messages on: without what is null; reasoning under the names that templates read.
jinja::Value value_of(const ChatMessage& message) {
  Json json{{"role", message.role}, {"content", message.content}};
  if (!message.fields.empty()) {
    const Json fields = parse_json(message.fields, "a message's fields");
    DSE_CHECK_USER(fields.is_object(), "a message's fields should be a JSON object");
    for (const auto& [key, value] : fields.items()) json[key] = value;
  }
  for (auto it = json.begin(); it != json.end();) it = it->is_null() ? json.erase(it) : std::next(it);
  for (const char* name : {"reasoning_content", "thinking", "reasoning"})
    if (json.contains(name)) {
      const Json reasoning = json[name];
      if (!json.contains("thinking")) json["thinking"] = reasoning;
      json["reasoning_content"] = reasoning;
      break;
    }
  std::vector<std::pair<jinja::Value, jinja::Value>> items;
  for (const auto& [key, value] : json.items()) {
    const bool role = key == "role" && value.is_string();
    items.emplace_back(jinja::text(key, jinja::content),
                       jinja::value_of(value, role ? origin_of_role(value.get<std::string>()) : jinja::content));
  }
  jinja::Budget budget;
  return jinja::dict(std::move(items), budget);
}

class HumanAssistant {
 public:
  void add(const ChatMessage& message) {
    DSE_CHECK_USER(message.fields.empty() || !parse_json(message.fields, "a message's fields").contains("content"),
                   "a message whose content is no text wants a model with a chat template");
    if (message.role == "user" || message.role == "human") {
      add("Human: ", jinja::scaffold), add(message.content, jinja::content), add("\n", jinja::scaffold);
    } else if (message.role == "system") {
      add(message.content, jinja::content), add("\n", jinja::scaffold);
    } else if (message.role == "assistant") {
      open_answer();
      const char author = message.train ? jinja::generated : jinja::scaffold;
      pieces_.push_back({});
      add(" ", author), add(message.content, char(author | jinja::content));
      pieces_.back().ends = true;
      pieces_.push_back({});
      add("\n", jinja::scaffold);
    } else {
      user_error(error_line("a message has the role '{}': expected system, user or assistant", message.role));
    }
  }
  void open_answer() { add("Assistant:", jinja::scaffold); }
  std::vector<ChatPiece> take() { return std::move(pieces_); }

 private:
  void add(const std::string& bytes, char origin) {
    pieces_.back().text.bytes += bytes, pieces_.back().text.origin.append(bytes.size(), origin);
  }
  std::vector<ChatPiece> pieces_{1};
};

}  // namespace

struct ChatFormat::Templates {
  struct One {
    std::string source;
    std::optional<jinja::Template> parsed;
    std::string error;  // where it could not be
    bool marks = false;
  };
  std::map<std::string, One> by_name;
  jinja::Named variables;
  std::map<std::string, std::string> tokens;  // the variables' texts
  std::string where;

  const One& chosen(bool with_tools) const {
    auto one = with_tools ? by_name.find("tool_use") : by_name.end();
    if (one == by_name.end()) one = by_name.find("default");
    DSE_CHECK_USER(one != by_name.end(), "{}: of several chat templates none is named 'default'", where);
    if (!one->second.parsed) user_error(one->second.error);
    return one->second;
  }
};

ChatFormat ChatFormat::of(const fs::path& directory) {
  const fs::path file = directory / "tokenizer_config.json";
  const Json config = file_exists(file) ? read_json(file) : Json();
  auto templates = std::make_shared<Templates>();
  for (const auto& [name, source] : read_templates(directory, config)) {
    auto& one = templates->by_name[name];
    one.source = source.text;
    try {
      one.parsed = jinja::parse(source.text, source.where);
      one.marks = jinja::has_generation(one.parsed->body);
    } catch (const UserError& e) {
      one.error = e.what();
    }
  }
  ChatFormat format;
  if (templates->by_name.empty()) return format;
  templates->where = directory.string();
  try {
    for (const auto& [name, text] : SideFiles(directory).named_texts()) {
      templates->tokens[name] = text;
      templates->variables.emplace_back(name, jinja::text(text, jinja::scaffold));
    }
  } catch (const TokenizerJson::exception&) {
    user_error(fmt::format("{}: a special token in the tokenizer's files is no text", directory.string()));
  }
  format.templates_ = std::move(templates);
  return format;
}

bool ChatFormat::marks_answers() const { return !templates_ || templates_->chosen(false).marks; }

bool ChatFormat::is_like(const ChatFormat& other) const {
  if (!templates_ || !other.templates_) return !templates_ && !other.templates_;
  const auto &ours = *templates_, &theirs = *other.templates_;
  if (ours.by_name.size() != theirs.by_name.size()) return false;
  return std::ranges::all_of(ours.by_name, [&](const auto& named) {
    const auto found = theirs.by_name.find(named.first);
    const std::string& source = named.second.source;
    if (found == theirs.by_name.end() || found->second.source != source) return false;
    const auto tokens_read = [&](const Templates& templates) {
      auto tokens = templates.tokens;
      std::erase_if(tokens, [&](const auto& token) { return source.find(token.first) == source.npos; });
      return tokens;
    };
    return tokens_read(ours) == tokens_read(theirs);
  });
}

std::vector<ChatPiece> ChatFormat::render(const std::vector<ChatMessage>& messages, bool answer_next,
                                          const ChatOptions& options) const {
  if (!templates_) {
    HumanAssistant form;
    for (const auto& message : messages) form.add(message);
    if (answer_next) form.open_answer();
    return form.take();
  }
  jinja::Values values;
  for (const auto& message : messages) values.push_back(value_of(message));
  jinja::Budget budget;
  jinja::Named variables{{"messages", jinja::sequence(jinja::Sequence::Kind::list, std::move(values), budget)},
                         {"tools", jinja::value_of(options.tools, jinja::content)},
                         {"documents", jinja::value_of(options.documents, jinja::content)},
                         {"add_generation_prompt", answer_next}};
  DSE_CHECK_USER(options.variables.is_null() || options.variables.is_object(),
                 "what a chat template reads beside messages should be a JSON object");
  for (const auto& [name, value] : options.variables.items())
    variables.emplace_back(name, jinja::value_of(value, jinja::content));
  variables.insert(variables.end(), templates_->variables.begin(), templates_->variables.end());
  const auto& chosen = templates_->chosen(!options.tools.is_null());
  return {{jinja::render(*chosen.parsed, variables, options.now)}};
}

}  // namespace dsengine
