#include <CLI/CLI.hpp>
#include <algorithm>
#include <span>

#include "app/command.h"
#include "app/json_keys.h"
#include "app/json_lines.h"
#include "app/shared_options.h"
#include "base/check.h"

namespace dsengine {

namespace {

struct GenerateOptions {
  ModelFolder folder;
  LineFiles files;
  Computing computing;
  dse::Sampling sampling;
};

// Lines answered at once: enough that the slots are busy but for a window's end, and few enough that what is answered
// takes little memory.
size_t generation_window(const dse::Sampling& s) {
  constexpr int64_t kTokens = 1 << 20, kFillings = 16;
  const int64_t answers = std::max(kTokens / s.max_new_tokens, kFillings * std::min<int64_t>(s.slots, kTokens));
  return size_t(std::clamp<int64_t>(answers / s.samples, 1, int64_t(JsonLines::kWindow)));
}

void put_answers(Json& line, std::span<const dse::Reply> replies) {
  const bool own_text = line.contains("text");
  const auto put = [&](const char* key, auto member) {
    if (replies.size() == 1) {
      line[key] = replies[0].*member;
      return;
    }
    line[key] = Json::array();
    for (const auto& reply : replies) line[key].push_back(reply.*member);
  };
  put("output_ids", &dse::Reply::tokens);
  if (!own_text) put("text", &dse::Reply::text);
  put("reply", &dse::Reply::text);
  put("logprobs", &dse::Reply::logprobs);
  put("finish_reason", &dse::Reply::finish);
}

// Answers to prompts.
int generate(const GenerateOptions& o, const Common& common) {
  const dse::Engine engine({common.plugin_path, o.computing.threads, o.computing.device});
  const dse::Model loaded = load_model(engine, o.folder, "--model", dse::HeadKind::language, o.computing.dtype);
  dse::Sampling sampling = o.sampling;
  DSE_CHECK_USER(sampling.stop.empty() || loaded.text(), "--stop needs the model's tokenizer");
  for (const auto& stop : sampling.stop)
    DSE_CHECK_USER(!stop.empty(), "--stop: an empty string would end every answer at once");
  JsonLines lines(o.files.input, o.files.output);
  while (lines.next(generation_window(sampling))) {
    std::vector<dse::Tokens> prompts;
    std::vector<size_t> which;
    sampling.rows.clear();
    for (size_t i = 0; i < lines.size(); ++i)
      lines.attempt(i, [&](Json& line) {
        auto ids = tokens_of(line, loaded.text(), Reading::question, loaded.vocabulary());
        if (ids.empty() && !line.contains("input_ids")) ids = loaded.empty_prompt();
        loaded.check_prompt(ids, sampling.max_new_tokens);
        prompts.push_back(std::move(ids)), which.push_back(i), sampling.rows.push_back(lines.number(i));
      });
    const auto replies = loaded.generate(prompts, sampling);
    const auto n = size_t(sampling.samples);
    for (size_t p = 0; p < prompts.size(); ++p)
      lines.attempt(which[p], [&](Json& line) { put_answers(line, std::span(replies).subspan(p * n, n)); });
  }
  return lines.finish();
}

}  // namespace

Body define_generate(CLI::App& app, Common& common) {
  auto o = std::make_shared<GenerateOptions>();
  add_model_option(app, o->folder);
  app.add_option("--n", o->sampling.samples, "answers a prompt")->check(side_by_side());
  app.add_option("--slots", o->sampling.slots, "sequences at once")->check(side_by_side());
  app.add_option("--stop", o->sampling.stop, "a string that ends an answer")->allow_extra_args(false);
  app.add_flag("--ignore-eos", o->sampling.ignore_end);
  add_base_option(app, "--base", o->folder.base, "an adapter");
  add_line_options(app, o->files);
  add_computing_options(app, o->computing);
  add_sampling_options(app, o->sampling);
  app.footer(kGenerateKeys);
  return [o, &common] { return generate(*o, common); };
}

}  // namespace dsengine
