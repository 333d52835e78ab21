// `dsengine launch`: the ranks of a run, started, watched and started again.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <deque>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <optional>

#include "app/command.h"
#include "base/check.h"
#include "run/stop_signal.h"

namespace dsengine {
namespace {

constexpr size_t kLastLines = 8;  // of a rank, which are shown when it has failed

struct LaunchOptions {
  int64_t ranks = 2, max_restarts = 0;
  std::string hosts, agent, mpirun = "mpirun";
};

// What mpirun says of the first rank that failed, in its own words, line by line.
class FirstFailure {
 public:
  void read(const std::string& line) {
    if (rank_) return;
    // "… process rank 1 with PID 17 on node x exited on signal 9 (Killed)."
    if (const auto at = line.find("process rank "), on = line.find(" exited on "); at != line.npos && on != line.npos)
      rank_ = number_at(line, at + 13), how_ = line.substr(on + 11);
    // "… due to process rank 1 with PID 17 on node x exiting improperly.": it told an error, which others wait for
    if (const auto at = line.find("due to process rank "); at != line.npos)
      rank_ = number_at(line, at + 20), how_ = "its own end";
    // "  Process name: [[17,1],1]", and then "  Exit code:    1"
    if (const auto at = line.find("Process name: [["); at != line.npos) named_ = number_at(line, line.rfind("],") + 2);
    if (const auto at = line.find("Exit code:"); at != line.npos && named_) rank_ = named_, how_ = line.substr(at);
  }
  std::optional<int64_t> rank() const { return rank_; }
  const std::string& how() const { return how_; }

 private:
  static std::optional<int64_t> number_at(const std::string& line, size_t at) {
    int64_t number = 0;
    const auto [end, error] =
        std::from_chars(line.data() + std::min(at, line.size()), line.data() + line.size(), number);
    return error == std::errc() ? std::optional(number) : std::nullopt;
  }

  std::optional<int64_t> rank_, named_;
  std::string how_;
};

// Lines of mpirun and of its ranks, which it marks "[1,<rank>]<stdout>:" or "…<stderr>:": shown as "[rank] line".
class RankLines {
 public:
  void read(const std::string& line, std::ostream& out) {
    int64_t rank = 0;
    const size_t close = line.find("]<std"), text = line.find(">:");
    if (!line.starts_with("[1,") || close == line.npos || text == line.npos ||
        std::from_chars(line.data() + 3, line.data() + close, rank).ptr != line.data() + close) {
      failure_.read(line);
      if (!line.empty()) out << line << "\n" << std::flush;
      return;
    }
    auto& last = last_[rank];
    last.push_back(line.substr(text + 2));
    if (last.size() > kLastLines) last.pop_front();
    out << fmt::format("[{}] {}\n", rank, last.back()) << std::flush;
  }
  const FirstFailure& failure() const { return failure_; }
  const std::deque<std::string>& last_of(int64_t rank) { return last_[rank]; }

 private:
  FirstFailure failure_;
  std::map<int64_t, std::deque<std::string>> last_;
};

// One end of a pipe, read by lines.
class LineReader {
 public:
  explicit LineReader(int descriptor) : descriptor_(descriptor) {}
  ~LineReader() { close(descriptor_); }
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  bool open() const { return open_; }
  pollfd polled() const { return {open_ ? descriptor_ : -1, POLLIN, 0}; }
  template <class F>
  void take(const F& line) {
    std::array<char, 4096> buffer;
    const ssize_t got = ::read(descriptor_, buffer.data(), buffer.size());
    if (got > 0) rest_.append(buffer.data(), size_t(got));
    if (got == 0) open_ = false;
    for (size_t end; (end = rest_.find('\n')) != rest_.npos; rest_.erase(0, end + 1)) line(rest_.substr(0, end));
    if (!open_ && !rest_.empty()) line(std::exchange(rest_, ""));
  }

 private:
  int descriptor_;
  bool open_ = true;
  std::string rest_;
};

struct Ended {
  int status = 0;  // as shells count
  RankLines lines;
};

// Starts the ranks and returns when all have ended. A wish to stop is handed on as the signal that mpirun hands on.
Ended run_ranks_once(const std::vector<std::string>& command, const StopSignal& stop) {
  int out[2], err[2];
  DSE_CHECK_USER(pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0, "launch: no pipe: {}", std::strerror(errno));
  std::vector<char*> arguments;
  for (const auto& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t child = fork();
  DSE_CHECK_USER(child >= 0, "launch: no process: {}", std::strerror(errno));
  if (child == 0) {
    setpgid(0, 0);                     // a terminal's Ctrl-C is this process's to hand on
    prctl(PR_SET_PDEATHSIG, SIGTERM);  // and it leaves no ranks behind
    dup2(out[1], STDOUT_FILENO), dup2(err[1], STDERR_FILENO);
    execvp(arguments[0], arguments.data());
    const std::string error = fmt::format("launch: {}: {}\n", arguments[0], std::strerror(errno));
    [[maybe_unused]] const auto written = write(STDERR_FILENO, error.data(), error.size());
    _exit(127);
  }
  close(out[1]), close(err[1]);
  LineReader readers[] = {LineReader(out[0]), LineReader(err[0])};
  Ended ended;
  using Clock = std::chrono::steady_clock;
  auto tell_next = Clock::time_point::min();
  bool told = false;
  while (readers[0].open() || readers[1].open()) {
    // More than once: whom it comes to before its ranks have begun does not hand it on.
    if (stop.requested() && Clock::now() >= tell_next) {
      if (!std::exchange(told, true))
        spdlog::info("launch event=stop note=\"the ranks are told: each finishes its step, and the run is saved\"");
      kill(child, SIGUSR1);
      tell_next = Clock::now() + std::chrono::seconds(2);
    }
    pollfd polled[] = {readers[0].polled(), readers[1].polled()};
    if (poll(polled, 2, 200) <= 0) continue;
    for (size_t i : {0, 1})
      if (polled[i].revents != 0)
        readers[i].take([&](const std::string& line) { ended.lines.read(line, i == 0 ? std::cout : std::cerr); });
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return ended;
}

std::vector<std::string> command_of(const LaunchOptions& options, const Common& common,
                                    const std::vector<std::string>& arguments) {
  std::vector<std::string> command{
      options.mpirun, "-n", std::to_string(options.ranks), "--tag-output", "--bind-to", "none", "--oversubscribe"};
  if (geteuid() == 0) command.push_back("--allow-run-as-root");
  if (!options.hosts.empty()) command.insert(command.end(), {"--hostfile", options.hosts});
  if (!options.agent.empty()) command.insert(command.end(), {"--mca", "plm_rsh_agent", options.agent});
  command.push_back(std::filesystem::read_symlink("/proc/self/exe").string());
  for (const auto& folder : common.plugin_path) command.insert(command.end(), {"--plugin-path", folder.string()});
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

int launch(const LaunchOptions& options, const Common& common, const std::vector<std::string>& arguments) {
  DSE_CHECK_USER(!arguments.empty(), "launch: what shall the ranks do? dsengine launch --nproc 2 run --config FILE");
  DSE_CHECK_USER(options.hosts.empty() || std::filesystem::exists(options.hosts), "launch: no hosts file {}",
                 options.hosts);
  const StopSignal stop;
  const auto command = command_of(options, common, arguments);
  for (int64_t restarts = 0;; ++restarts) {
    Ended ended = run_ranks_once(command, stop);
    if (ended.status == 0) return 0;
    const auto rank = ended.lines.failure().rank();
    DSE_CHECK_USER(ended.status != 127 || rank,
                   "launch: '{}' cannot be started: install OpenMPI (openmpi-bin), or give --mpirun", options.mpirun);
    if (stop.requested()) return 128 + stop.signal();
    spdlog::error("launch event=failed rank={} how=\"{}\" status={}", rank ? std::to_string(*rank) : "?",
                  ended.lines.failure().how(), ended.status);
    if (rank)
      for (const auto& line : ended.lines.last_of(*rank)) spdlog::error("launch rank={} said=\"{}\"", *rank, line);
    // What a rank has told as an error would only be told again; but for one that others have waited for in vain.
    const bool lost = ended.status > 128 || ended.status == kRankLostStatus;
    if (!lost || restarts == options.max_restarts) return ended.status;
    spdlog::warn("launch event=restart number={} of={} note=\"the run goes on from its newest checkpoint\"",
                 restarts + 1, options.max_restarts);
  }
}

}  // namespace

Body define_launch(CLI::App& app, Common& common) {
  auto o = std::make_shared<LaunchOptions>();
  app.add_option("--nproc", o->ranks, "ranks")->check(CLI::Range(int64_t{1}, int64_t{1} << 20))->capture_default_str();
  app.add_option("--hosts", o->hosts, "file of hosts, one a line: name slots=N (OpenMPI's); none: this machine");
  app.add_option("--max-restarts", o->max_restarts, "how often a run that has lost a rank is gone on with")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--agent", o->agent, "what starts a process on another host: ssh");
  app.add_option("--mpirun", o->mpirun, "OpenMPI's mpirun")->capture_default_str();
  app.prefix_command();  // from the first word that is no option of these on
  app.footer("The rest of the line is what each rank runs: dsengine launch --nproc 4 run --config rlhf.toml");
  return [&app, &common, o] { return launch(*o, common, app.remaining()); };
}

}  // namespace dsengine
