#include <CLI/CLI.hpp>

#include "app/command.h"
#include "app/json_keys.h"
#include "app/json_lines.h"
#include "app/shared_options.h"
#include "base/check.h"
#include "base/directory.h"

namespace dsengine {

namespace {

struct TokenizeOptions {
  ModelFolder folder;
  LineFiles files;
};

// Text to ids and back.
int tokenize(const TokenizeOptions& o) {
  check_directory(o.folder.directory, "--model");
  check_base(o.folder);
  const dse::Text text = dse::Text::load(o.folder.directory, o.folder.base);
  JsonLines lines(o.files.input, o.files.output);
  while (lines.next())
    for (size_t i = 0; i < lines.size(); ++i)
      lines.attempt(i, [&](Json& line) {
        if (line.contains("messages")) {
          const auto turns = turns_of(line["messages"]);
          const auto options = chat_options_of(line);
          line["text"] = text.prompt_text(turns, options), line["input_ids"] = text.prompt(turns, options);
        } else if (line.contains("text")) {
          line["input_ids"] = text.encode(string_of(line, "text"));
        } else {
          DSE_CHECK_USER(line.contains("input_ids"), "expected 'text', 'messages' or 'input_ids'");
          line["text"] = text.decode(ids_of(line, text.vocabulary()), false);
        }
      });
  return lines.finish();
}

}  // namespace

Body define_tokenize(CLI::App& app, Common&) {
  auto o = std::make_shared<TokenizeOptions>();
  add_model_option(app, o->folder);
  add_base_option(app, "--base", o->folder.base, "an adapter");
  add_line_options(app, o->files);
  app.footer(kTokenizeKeys);
  return [o] { return tokenize(*o); };
}

}  // namespace dsengine
