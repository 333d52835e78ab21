#include "app/commands.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <span>

#include "app/json_lines.h"
#include "base/check.h"
#include "base/directory.h"
#include "base/printable.h"
#include "files/hf_directory.h"
#include "model/model_files.h"

namespace dsengine {

namespace {

namespace fs = std::filesystem;

dse::Model load(const dse::Engine& engine, const ModelFolder& model, const char* option, dse::HeadKind head,
                const std::string& dtype) {
  check_model_directory(model.directory, option);
  check_base(model);
  return engine.load(model.directory, {.head = head, .rounded_to_bf16 = dtype == "bf16", .base = model.base});
}

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

// "5GB", "200MB", "1e9": bytes.
uint64_t bytes_of(const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  const std::string unit = end;
  const double factor = unit == "GB" ? 1e9 : unit == "MB" ? 1e6 : unit == "KB" ? 1e3 : unit.empty() ? 1 : 0;
  const double bytes = number * factor;
  DSE_CHECK_USER(end != text.c_str() && std::isfinite(bytes) && bytes >= 1 && bytes < 1e18,
                 "--shard-size: '{}' is no size; write 5GB, 200MB or bytes", text);
  return uint64_t(bytes);
}

}  // namespace

void check_base(const ModelFolder& model) {
  DSE_CHECK_USER(model.base.empty() || is_adapter(model.directory),
                 "--base {}: {} is no adapter (it has no adapter_config.json): it has no base", model.base,
                 model.directory);
}

int score_command(const dse::Engine& engine, const ModelFolder& model, const std::string& reward,
                  const LineFiles& files, const std::string& dtype) {
  DSE_CHECK_USER(model.directory.empty() != reward.empty(), "score: give either --model or --reward");
  const bool rewards = !reward.empty();
  const dse::Model loaded = rewards ? load(engine, {reward, model.base}, "--reward", dse::HeadKind::value, dtype)
                                    : load(engine, model, "--model", dse::HeadKind::language, dtype);
  JsonLines lines(files.input, files.output);
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

namespace {

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

}  // namespace

int generate_command(const dse::Engine& engine, const ModelFolder& model, const LineFiles& files,
                     const std::string& dtype, const dse::Sampling& given) {
  const dse::Model loaded = load(engine, model, "--model", dse::HeadKind::language, dtype);
  dse::Sampling sampling = given;
  DSE_CHECK_USER(sampling.stop.empty() || loaded.text(), "--stop needs the model's tokenizer");
  for (const auto& stop : sampling.stop)
    DSE_CHECK_USER(!stop.empty(), "--stop: an empty string would end every answer at once");
  JsonLines lines(files.input, files.output);
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

int tokenize_command(const ModelFolder& model, const LineFiles& files) {
  check_directory(model.directory, "--model");
  check_base(model);
  const dse::Text text = dse::Text::load(model.directory, model.base);
  JsonLines lines(files.input, files.output);
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

int chat_command(const dse::Engine& engine, const ModelFolder& model, const dse::Sampling& given) {
  const dse::Model loaded = load(engine, model, "--model", dse::HeadKind::language, "fp32");
  DSE_CHECK_USER(loaded.text(), "{}: chat needs a tokenizer", model.directory);
  const bool terminal = isatty(STDIN_FILENO);
  std::vector<dse::ChatTurn> turns;
  dse::Sampling sampling = given;
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

int export_command(const dse::Engine& engine, const ExportOptions& o) {
  fs::path from = o.model.directory;
  check_directory(from, "--model");
  check_base(o.model);
  if (fs::exists(from / "done.json")) {
    from /= o.weights == "ema" ? "ema" : "model";
    DSE_CHECK_USER(fs::is_directory(from), "{}: the stage kept no moving average: it ran with ema_decay = 0",
                   o.model.directory);
  } else {
    DSE_CHECK_USER(o.weights == "final", "--weights {}: {} is no finished stage of a run", o.weights,
                   o.model.directory);
    DSE_CHECK_USER(!fs::exists(from / "settings.txt"), "{}: the stage has not ended", o.model.directory);
  }
  DSE_CHECK_USER(!fs::exists(o.output), "--output: {} exists: choose another place", o.output);
  const auto precision = o.dtype == "bf16"   ? dse::Precision::bf16
                         : o.dtype == "fp16" ? dse::Precision::fp16
                                             : dse::Precision::fp32;
  const dse::Saving saving{precision, bytes_of(o.shard_size)};
  engine.load(from, {.base = o.model.base}).save(o.output, saving);
  std::cout << o.output << "\n";
  return 0;
}

}  // namespace dsengine
