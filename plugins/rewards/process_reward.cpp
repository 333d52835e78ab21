// A reward that is a program of its own, in any language: one JSON line in for each answer, one JSON line out.
//   in   {"id": 7, "prompt": "…", "reply": "…", "finish": "eos", "tokens": 12, "metadata": {…} or null}
//   out  {"id": 7, "score": 0.5}
// The program is started once and asked one answer after another; its standard error goes where the engine's does,
// without control characters. An answer that is late, is no such line, or has no finite score, and one at which the
// program ends, has failed: it is named in the log, counted and dropped, never scored 0, and the program is started
// anew where it can no longer be trusted to be in step. `on_failure = "stop"` ends the run instead. These three options
// are this reward's own way of what the engine does for every other: a program can be ended, code in the process
// cannot.
#include <dsengine/reward.hpp>
#include <nlohmann/json.hpp>

#include "../json_text.h"
#include "process_child.h"

using process_reward::Child;
using process_reward::Clock;

class ProcessReward {
 public:
  static constexpr const char* summary = "a program of its own, asked by JSON lines";

  explicit ProcessReward(dse::Options& o)
      : command_(o.required("command", "shell command; runs in the engine's working directory")),
        deadline_(o.real("deadline", 30, "seconds that one answer may take", {0.001, 1e6})),
        stop_on_failure_(
            o.string("on_failure", "drop", "drop: the answer is left out; stop: the run ends", "drop|stop") == "stop"),
        most_in_a_row_(o.integer("max_failures", 16, "more failed answers in a row end the run", {1, 1e9})) {
    const auto older = o.integer("max_failures_in_a_row", 0, "older name of max_failures; 0: not given", {0, 1e9});
    if (older > 0) most_in_a_row_ = older;
  }

  void scores(std::span<const dse::Answer> answers, std::span<float> scores) {
    for (size_t i = 0; i < answers.size(); ++i) {
      std::string reason;
      const auto score = ask(answers[i], reason);
      scores[i] = score.value_or(std::nanf(""));
      failures_in_a_row_ = score ? 0 : failures_in_a_row_ + 1;
      if (score) continue;
      const std::string what =
          "answer " + std::to_string(i + 1) + " of " + std::to_string(answers.size()) + ": " + reason;
      if (stop_on_failure_ || failures_in_a_row_ > most_in_a_row_) throw dse::Failure("'" + command_ + "': " + what);
      dse::host().log(DSE_LOG_WARNING, ("reward process: " + what).c_str());
    }
  }

 private:
  std::optional<float> ask(const dse::Answer& a, std::string& reason) {
    const auto until =
        Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(deadline_));
    const int64_t id = ++last_id_;
    const auto give_up = [&](std::string why) -> std::optional<float> {
      const std::string how = child_.stop();
      reason = how.empty() ? why : why + " (" + how + ")";
      return std::nullopt;
    };
    if (!child_.running()) child_.start(command_);
    const char* const finish[] = {"eos", "length", "stop", "record"};
    nlohmann::json line{{"id", id},
                        {"prompt", a.prompt},
                        {"reply", a.reply},
                        {"finish", finish[std::min(a.finish, 3u)]},
                        {"tokens", a.token_count}};
    std::string text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    text.pop_back();
    const bool has_metadata = a.metadata && nlohmann::json::accept(a.metadata);
    text += ",\"metadata\":" + (has_metadata ? compact_json(a.metadata) : "null") + "}\n";  // numbers keep their digits
    if (!child_.send_line(text, until)) return give_up("the program does not read its input");
    bool late = false;
    const auto reply = child_.receive_line(until, late);
    if (!reply && !late) return give_up("the program ended");
    if (!reply) return give_up(std::string("no answer within the deadline") + (flushes(id) ? "" : kNoFlush));
    answered_ = true;
    const auto json = nlohmann::json::parse(*reply, nullptr, false);
    if (!json.is_object() || !json.contains("id") || !json.contains("score"))
      return give_up("no object with id and score: " + reply->substr(0, 80));
    if (json["id"] != id) return give_up("the answer to another id: " + reply->substr(0, 80));
    // The program is in step: it may go on after a score that is none.
    const float score = json["score"].is_number() ? float(json["score"].get<double>()) : std::nanf("");
    if (!std::isfinite(score)) {
      reason = "the score is no finite number of float32: " + reply->substr(0, 80);
      return std::nullopt;
    }
    return score;
  }

  // False: the program was late, has not answered in time yet, and answers as soon as its input ends. Its answers then
  // lie in a buffer that is only written out when it is full, or when the program ends.
  bool flushes(int64_t id) {
    if (answered_) return true;
    child_.end_input();
    bool late = false;
    const auto reply = child_.receive_line(Clock::now() + std::chrono::seconds(2), late);
    const auto json = nlohmann::json::parse(reply.value_or(""), nullptr, false);
    return !json.is_object() || !json.contains("id") || json["id"] != id;
  }
  static constexpr const char* kNoFlush =
      ", but one as soon as its input ended: it does not flush its output (flush after each line: print(…, "
      "flush=True), "
      "python3 -u, stdbuf -oL)";

  std::string command_;
  double deadline_;
  bool stop_on_failure_;
  int64_t most_in_a_row_, failures_in_a_row_ = 0, last_id_ = 0;
  bool answered_ = false;  // in time, once
  Child child_;
};
DSE_REWARD("process", ProcessReward)
