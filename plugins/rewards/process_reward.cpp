// A reward that is a program of its own, in any language: one JSON line in for each answer, one JSON line out.
//   in   {"id": 7, "prompt": "…", "reply": "…", "finish": "eos", "tokens": 12, "metadata": {…} or null}
//   out  {"id": 7, "score": 0.5}
// The program is started once and asked one answer after another; its standard error goes where the engine's does, without
// control characters. An
// answer that is late, is no such line, or has no finite score, and one at which the program ends, has failed: it is
// named in the log, counted and dropped, never scored 0, and the program is started anew where it can no longer be
// trusted to be in step. `on_failure = "stop"` ends the run instead.
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <dsengine/reward.hpp>
#include <nlohmann/json.hpp>

#include <chrono>
#include <cstring>
#include <memory>
#include <optional>

#include "error_relay.h"

extern char** environ;

namespace {

using Clock = std::chrono::steady_clock;

// A shell command with its standard input and output on one socket.
class Child {
 public:
  Child() = default;
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() { stop(); }

  bool running() const { return pid_ > 0; }

  void start(const std::string& command) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
      throw dse::Failure(std::string("cannot make a socket pair: ") + std::strerror(errno));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    errors_ = std::make_unique<ErrorRelay>();
    posix_spawn_file_actions_adddup2(&actions, errors_->descriptor(), STDERR_FILENO);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);  // so that what it starts is ended with it
    const char* arguments[] = {"sh", "-c", command.c_str(), nullptr};
    const int error = posix_spawn(&pid_, "/bin/sh", &actions, &attributes, const_cast<char**>(arguments), environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(ends[1]);
    errors_->started();
    if (error != 0) {
      close(ends[0]);
      pid_ = -1;
      throw dse::Failure("cannot start '" + command + "': " + std::strerror(error));
    }
    socket_ = ends[0];
    buffer_.clear();
    closed_ = false;
  }

  // Ends it; how it ended by itself, if it had.
  std::string stop() {
    if (!running()) return "";
    close(socket_);
    int status = 0;
    std::string how;
    pid_t ended = 0;  // one that closed its output is about to end: it is given 0.1 s to say how
    for (int i = 0; i < 10 && (ended = waitpid(pid_, &status, WNOHANG)) == 0 && closed_; ++i) usleep(10000);
    if (ended == pid_) {
      how = WIFEXITED(status) ? "exit status " + std::to_string(WEXITSTATUS(status))
                              : "signal " + std::to_string(WTERMSIG(status));
      kill(-pid_, SIGKILL);
    } else {
      kill(-pid_, SIGKILL);
      waitpid(pid_, &status, 0);
    }
    pid_ = -1;
    errors_.reset();
    return how;
  }

  bool send_line(const std::string& line, Clock::time_point until) {
    for (size_t sent = 0; sent < line.size();) {
      if (!wait(POLLOUT, until)) return false;
      const auto n = send(socket_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
      if (n > 0) sent += size_t(n);
    }
    return true;
  }

  // Nothing: the deadline passed (late) or it closed its output.
  std::optional<std::string> receive_line(Clock::time_point until, bool& late) {
    late = false;
    for (;;) {
      if (const auto end = buffer_.find('\n'); end != buffer_.npos) {
        const std::string line = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        return line;
      }
      if (buffer_.size() > (1 << 20)) return std::nullopt;
      if (!wait(POLLIN, until)) return late = true, std::nullopt;
      char piece[4096];
      const auto n = recv(socket_, piece, sizeof piece, MSG_DONTWAIT);
      if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return closed_ = true, std::nullopt;
      if (n > 0) buffer_.append(piece, size_t(n));
    }
  }

 private:
  bool wait(short events, Clock::time_point until) const {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    pollfd p{socket_, events, 0};
    return left > 0 && poll(&p, 1, int(std::min<int64_t>(left + 1, 1 << 30))) > 0;
  }

  pid_t pid_ = -1;
  int socket_ = -1;
  std::string buffer_;
  std::unique_ptr<ErrorRelay> errors_;
  bool closed_ = false;  // its output
};

}  // namespace

class ProcessReward {
 public:
  static constexpr const char* summary = "a program of its own, asked by JSON lines";

  explicit ProcessReward(dse::Options& o)
      : command_(o.required("command", "shell command; runs in the engine's working directory")),
        deadline_(o.real("deadline", 30, "seconds that one answer may take", {0.001, 1e6})),
        stop_on_failure_(
            o.string("on_failure", "drop", "drop: the answer is left out; stop: the run ends", "drop|stop") == "stop"),
        most_in_a_row_(o.integer("max_failures_in_a_row", 16, "more of them end the run", {1, 1e9})) {}

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
    line["metadata"] = a.metadata ? nlohmann::json::parse(a.metadata, nullptr, false) : nlohmann::json();
    const auto text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    if (!child_.send_line(text, until)) return give_up("the program does not read its input");
    bool late = false;
    const auto reply = child_.receive_line(until, late);
    if (!reply) return give_up(late ? "no answer within the deadline" : "the program ended");
    const auto json = nlohmann::json::parse(*reply, nullptr, false);
    if (!json.is_object() || !json.contains("id") || !json.contains("score"))
      return give_up("no object with id and score: " + reply->substr(0, 80));
    if (json["id"] != id) return give_up("the answer to another id: " + reply->substr(0, 80));
    // The program is in step: it may go on after a score that is none.
    if (!json["score"].is_number() || !std::isfinite(json["score"].get<double>())) {
      reason = "the score is no finite number: " + reply->substr(0, 80);
      return std::nullopt;
    }
    return json["score"].get<float>();
  }

  std::string command_;
  double deadline_;
  bool stop_on_failure_;
  int64_t most_in_a_row_, failures_in_a_row_ = 0, last_id_ = 0;
  Child child_;
};
DSE_REWARD("process", ProcessReward)
