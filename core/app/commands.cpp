#include "app/commands.h"

#include <ATen/ATen.h>
#include <unistd.h>

#include <iostream>

#include "app/json_lines.h"
#include "base/check.h"
#include "base/printable.h"
#include "model/generator.h"
#include "rl/scorer.h"

namespace dsengine {

namespace {

constexpr int64_t kTokensPerForward = 8192;

const char* name_of(Finish finish) {
  return finish == Finish::eos ? "eos" : finish == Finish::stop ? "stop" : "length";
}

const TextModel* text_of(const LoadedModel& m) { return m.text ? &*m.text : nullptr; }

// Log-probabilities of all tokens but the first of each sequence, in one forward.
std::vector<std::vector<float>> sequence_logprobs(const Model& model, const std::vector<std::vector<int32_t>>& ids) {
  at::NoGradGuard no_grad;
  std::vector<std::span<const int32_t>> views(ids.begin(), ids.end());
  const Packed batch = pack(views);
  std::vector<int64_t> rows;
  for (size_t b = 0; b < ids.size(); ++b)
    for (int64_t i = batch.offsets[b]; i + 1 < batch.offsets[b + 1]; ++i) rows.push_back(i);
  std::vector<std::vector<float>> result(ids.size());
  if (rows.empty()) return result;
  const at::Tensor row = at::tensor(rows, at::kLong);
  const at::Tensor logp =
      model.log_prob(model.hidden(batch), row, batch.tokens.index_select(0, row + 1), 1.0, false).logp.to(at::kFloat);
  const float* from = logp.const_data_ptr<float>();
  for (size_t b = 0; b < ids.size(); ++b) {
    result[b].assign(from, from + ids[b].size() - 1);
    from += ids[b].size() - 1;
  }
  return result;
}

// The part of an answer's text before the first stop string; npos: none is in it.
size_t find_stop(const std::string& text, const std::vector<std::string>& stops) {
  size_t first = std::string::npos;
  for (const auto& stop : stops) first = std::min(first, text.find(stop));
  return first;
}

// Generates the answer to a conversation and prints it as it comes.
std::string say_answer(const LoadedModel& loaded, const std::vector<ChatMessage>& turns,
                       const SamplingOptions& sampling, const GenerateOptions& o, uint64_t turn) {
  const auto prompt = loaded.text->prompt_tokens(turns);
  int64_t room = o.max_new_tokens;
  if (const auto limit = loaded.model.graph().max_positions; limit > 0)
    room = std::min(room, limit - int64_t(prompt.size()));
  DSE_CHECK_USER(room > 0, "the conversation fills the model's context of {} tokens: /clear starts a new one",
                 loaded.model.graph().max_positions);
  StreamDecoder stream(loaded.text->tokenizer);
  std::string reply;
  const auto say = [&](std::string piece) {
    if (reply.empty() && piece.starts_with(' ')) piece.erase(0, 1);  // the form's space after "Assistant:"
    reply += piece;
    std::cout << piece << std::flush;
  };
  const GenerationOptions options{
      .sampling = sampling,
      .eos = loaded.eos,
      .on_token = [&](size_t, const std::vector<int32_t>& tokens) { return say(stream.push(tokens.back())), false; },
      .on_step = {}};
  Generator(loaded.model, {.slots = 1}).run({{prompt, room, 0}}, options, o.seed, turn);
  say(stream.finish());
  std::cout << std::endl;
  return reply;
}

}  // namespace

int score_command(const Session& session, const std::string& model, const std::string& reward, const LineFiles& files,
                  const std::string& dtype) {
  DSE_CHECK_USER(model.empty() != reward.empty(), "score: give either --model or --reward");
  const LoadedModel loaded =
      session.load(reward.empty() ? model : reward, reward.empty() ? ModelKind::language : ModelKind::value, dtype);
  JsonLines lines(files.input, files.output);
  for (size_t first = 0; first < lines.size();) {
    std::vector<std::vector<int32_t>> ids;
    std::vector<size_t> which;
    int64_t tokens = 0;
    size_t next = first;
    for (; next < lines.size() && tokens < kTokensPerForward; ++next)
      lines.attempt(next, [&](Json& line) {
        auto sequence = tokens_of(line, text_of(loaded), false, loaded.model.graph().vocabulary);
        const auto limit = loaded.model.graph().max_positions;
        DSE_CHECK_USER(limit == 0 || int64_t(sequence.size()) <= limit, "{} tokens exceed the model's {} positions",
                       sequence.size(), limit);
        tokens += int64_t(sequence.size());
        ids.push_back(std::move(sequence)), which.push_back(next);
      });
    if (reward.empty()) {
      const auto logprobs = sequence_logprobs(loaded.model, ids);
      for (size_t i = 0; i < ids.size(); ++i)
        lines.attempt(which[i], [&](Json& line) { line["input_ids"] = ids[i], line["logprobs"] = logprobs[i]; });
    } else {
      std::vector<std::span<const int32_t>> views(ids.begin(), ids.end());
      const auto values = last_values(loaded.model, views);
      for (size_t i = 0; i < ids.size(); ++i)
        lines.attempt(which[i], [&](Json& line) { line["input_ids"] = ids[i], line["reward"] = values[i]; });
    }
    first = next;
  }
  return lines.finish();
}

int generate_command(const Session& session, const std::string& model, const LineFiles& files, const std::string& dtype,
                     const GenerateOptions& o) {
  const LoadedModel loaded = session.load(model, ModelKind::language, dtype);
  DSE_CHECK_USER(o.stop.empty() || loaded.text, "--stop needs the model's tokenizer");
  for (const auto& stop : o.stop)
    DSE_CHECK_USER(!stop.empty(), "--stop: an empty string would end every answer at once");
  JsonLines lines(files.input, files.output);
  std::vector<GenerationRequest> requests;
  std::vector<size_t> which;
  for (size_t i = 0; i < lines.size(); ++i)
    lines.attempt(i, [&](Json& line) {
      const auto ids = tokens_of(line, text_of(loaded), true, loaded.model.graph().vocabulary);
      const auto limit = loaded.model.graph().max_positions;
      DSE_CHECK_USER(limit == 0 || int64_t(ids.size()) + o.max_new_tokens <= limit,
                     "{} prompt tokens and {} new ones exceed the model's {} positions", ids.size(), o.max_new_tokens,
                     limit);
      for (int64_t s = 0; s < o.samples; ++s) {
        requests.push_back({ids, o.max_new_tokens, uint64_t(i) * uint64_t(o.samples) + uint64_t(s)});
        which.push_back(i);
      }
    });
  GenerationOptions options{.sampling = o.sampling, .eos = loaded.eos, .on_token = {}, .on_step = {}};
  if (o.ignore_eos) options.eos.clear();
  if (!o.stop.empty())
    options.on_token = [&](size_t, const std::vector<int32_t>& tokens) {
      return find_stop(loaded.text->tokenizer.decode(tokens, true), o.stop) != std::string::npos;
    };
  std::vector<Generation> answers;
  if (!requests.empty()) answers = Generator(loaded.model, {.slots = o.slots}).run(requests, options, o.seed, 0);
  for (size_t i = 0; i < answers.size(); ++i)
    lines.attempt(which[i], [&](Json& line) {
      const auto& a = answers[i];
      std::string text;
      if (loaded.text) text = loaded.text->tokenizer.decode(a.tokens, true);
      if (a.finish == Finish::stop) text.resize(find_stop(text, o.stop));
      const auto put = [&](const char* key, Json value) {
        if (o.samples == 1)
          line[key] = std::move(value);
        else
          line[key].push_back(std::move(value));
      };
      if (o.samples > 1 && i % size_t(o.samples) == 0)
        for (const char* key : {"output_ids", "text", "logprobs", "finish_reason"}) line[key] = Json::array();
      put("output_ids", a.tokens), put("text", text), put("logprobs", a.logp), put("finish_reason", name_of(a.finish));
    });
  return lines.finish();
}

int tokenize_command(const std::string& model, const LineFiles& files) {
  const TextModel text = TextModel::load(model, model);
  JsonLines lines(files.input, files.output);
  for (size_t i = 0; i < lines.size(); ++i)
    lines.attempt(i, [&](Json& line) {
      const int64_t vocabulary = text.tokenizer.vocab_size();
      if (line.contains("messages")) {
        line["text"] = text.prompt_text(messages_of(line["messages"]), true);
        line["input_ids"] = text.prompt_tokens(messages_of(line["messages"]));
      } else if (line.contains("text")) {
        line["input_ids"] = tokens_of({{"text", line["text"]}}, &text, false, vocabulary);
      } else {
        line["text"] = text.tokenizer.decode(tokens_of(line, &text, false, vocabulary), false);
      }
    });
  return lines.finish();
}

int chat_command(const Session& session, const std::string& model, const GenerateOptions& o) {
  const LoadedModel loaded = session.load(model, ModelKind::language, "fp32");
  DSE_CHECK_USER(loaded.text, "{}: chat needs a tokenizer", model);
  const bool terminal = isatty(STDIN_FILENO);
  std::vector<ChatMessage> turns;
  SamplingOptions sampling = o.sampling;
  std::string line;
  for (uint64_t turn = 0; (terminal && std::cout << "> " << std::flush), std::getline(std::cin, line); ++turn) {
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
    turns.push_back({"user", line, false});
    try {
      turns.push_back({"assistant", say_answer(loaded, turns, sampling, o, turn), false});
    } catch (const UserError& e) {  // a line that is no UTF-8, a conversation that is too long
      std::cerr << printable_line(e.what()) << "\n";
      turns.pop_back();
    }
  }
  return 0;
}

}  // namespace dsengine
