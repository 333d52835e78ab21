#include <CLI/CLI.hpp>

#include "app/command.h"
#include "app/json_keys.h"
#include "app/json_lines.h"
#include "app/shared_options.h"
#include "base/check.h"

namespace dsengine {

namespace {

struct ScoreOptions {
  ModelFolder folder;
  std::string reward;  // a directory: this or the folder's is given
  LineFiles files;
  Computing computing;
};

// Log-probabilities under a language model, or rewards by a reward model.
int score(const ScoreOptions& o, const Common& common) {
  const dse::Engine engine({common.plugin_path, o.computing.threads, o.computing.device});
  DSE_CHECK_USER(o.folder.directory.empty() != o.reward.empty(), "score: give either --model or --reward");
  const bool rewards = !o.reward.empty();
  const dse::Model loaded =
      rewards ? load_model(engine, {o.reward, o.folder.base}, "--reward", dse::HeadKind::value, o.computing.dtype)
              : load_model(engine, o.folder, "--model", dse::HeadKind::language, o.computing.dtype);
  JsonLines lines(o.files.input, o.files.output);
  while (lines.next()) {
    std::vector<dse::Tokens> ids;
    std::vector<size_t> which;
    for (size_t i = 0; i < lines.size(); ++i)
      lines.attempt(i, [&](Json& line) {
        auto sequence = tokens_of(line, loaded.text(), Reading::whole, loaded.vocabulary());
        const auto limit = loaded.max_positions();
        DSE_CHECK_USER(limit == 0 || int64_t(sequence.size()) <= limit, "{} tokens exceed the model's {} positions",
                       sequence.size(), limit);
        DSE_CHECK_USER(!sequence.empty() || !rewards, "the text has no tokens: a reward is read at the last one");
        if (sequence.empty())
          line["input_ids"] = line["logprobs"] = Json::array();
        else
          ids.push_back(std::move(sequence)), which.push_back(i);
      });
    const auto put = [&](const char* key, const auto& values) {
      for (size_t i = 0; i < ids.size(); ++i)
        lines.attempt(which[i], [&](Json& line) { line["input_ids"] = ids[i], line[key] = values[i]; });
    };
    if (rewards)
      put("reward", loaded.rewards(ids));
    else
      put("logprobs", loaded.log_probs(ids));
  }
  return lines.finish();
}

}  // namespace

Body define_score(CLI::App& app, Common& common) {
  auto o = std::make_shared<ScoreOptions>();
  app.add_option("--model", o->folder.directory, "Hugging Face directory");
  app.add_option("--reward", o->reward, "directory of a reward model");
  add_base_option(app, "--base", o->folder.base, "an adapter");
  add_line_options(app, o->files);
  add_computing_options(app, o->computing);
  app.footer(kScoreKeys);
  return [o, &common] { return score(*o, common); };
}

}  // namespace dsengine
