#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "app/command.h"
#include "app/json_lines.h"
#include "app/shared_options.h"
#include "base/check.h"
#include "base/printable.h"

namespace dsengine {

namespace {

struct TalkOptions {
  ModelFolder folder;
  dse::Sampling sampling;
  std::string device = "cpu";
};

// Generates the answer to a conversation and prints it as it comes.
std::string say_answer(const dse::Model& model, const std::vector<dse::ChatTurn>& turns, dse::Sampling sampling) {
  const auto prompt = model.text()->prompt(turns);
  if (const auto limit = model.max_positions(); limit > 0)
    sampling.max_new_tokens = std::min(sampling.max_new_tokens, limit - int64_t(prompt.size()));
  DSE_CHECK_USER(sampling.max_new_tokens > 0,
                 "the conversation fills the model's context of {} tokens: /clear starts a new one",
                 model.max_positions());
  std::string reply;
  const auto replies = model.generate({prompt}, sampling, [&](size_t, std::string piece) {
    if (reply.empty() && piece.starts_with(' ')) piece.erase(0, 1);  // the form's space after "Assistant:"
    reply += piece;
    std::cout << printable_text(piece) << std::flush;
  });
  std::cout << std::endl;
  DSE_CHECK_USER(!has_non_finite(replies[0].logprobs), kNotFinite);
  return reply;
}

// A conversation on the terminal or through a pipe: /clear, /set temperature T, /quit.
int talk(const TalkOptions& o, const Common& common) {
  const dse::Engine engine({.plugin_path = common.plugin_path, .device = o.device});
  const dse::Model loaded = load_model(engine, o.folder, "--model", dse::HeadKind::language, "fp32");
  DSE_CHECK_USER(loaded.text(), "{}: chat needs a tokenizer", o.folder.directory);
  const bool terminal = isatty(STDIN_FILENO);
  std::vector<dse::ChatTurn> turns;
  dse::Sampling sampling = o.sampling;
  std::string line;
  for (; (terminal && std::cout << "> " << std::flush), std::getline(std::cin, line); ++sampling.step) {
    if (line == "/quit") break;
    if (line.empty()) continue;
    if (line == "/clear") {
      turns.clear();
      continue;
    }
    if (line[0] == '/') {
      char* end = nullptr;
      const std::string key = "/set temperature ";
      const double value = line.starts_with(key) ? std::strtod(line.c_str() + key.size(), &end) : -1;
      if (end && *end == '\0' && value >= 0)
        sampling.temperature = value;
      else
        std::cerr << "commands: /clear, /set temperature T, /quit\n";
      continue;
    }
    turns.push_back({"user", line});
    try {
      turns.push_back({"assistant", say_answer(loaded, turns, sampling)});
    } catch (const UserError& e) {  // a line that is no UTF-8, a conversation that is too long
      std::cerr << printable_line(e.what()) << "\n";
      turns.pop_back();
    }
  }
  return 0;
}

}  // namespace

Body define_chat(CLI::App& app, Common& common) {
  auto o = std::make_shared<TalkOptions>();
  add_model_option(app, o->folder);
  add_device_option(app, o->device);
  add_base_option(app, "--base", o->folder.base, "an adapter");
  add_sampling_options(app, o->sampling);
  return [o, &common] { return talk(*o, common); };
}

}  // namespace dsengine
