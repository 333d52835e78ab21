// A shell command, asked in lines over its standard input and output. It ends, with all that it started, when this
// object does, and when this process is killed (supervise/dse_supervise.cpp, which lies beside this plugin).
//
//   Child child;
//   child.start("python3 judge.py");
//   if (child.send_line("{…}\n", until)) line = child.receive_line(until, late);
#pragma once
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <dsengine/plugin.hpp>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "error_relay.h"

extern char** environ;

namespace process_reward {

using Clock = std::chrono::steady_clock;

// Where this library lies, which the loader knows by any address in it.
inline std::string own_folder() {
  static const char here = 0;
  Dl_info info{};
  const std::string file = dladdr(&here, &info) != 0 && info.dli_fname ? info.dli_fname : "";
  return file.substr(0, file.rfind('/') + 1);
}

class Child {
 public:
  Child() = default;
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() { stop(); }

  bool running() const { return pid_ > 0; }

  void start(const std::string& command) {
    int line[2], life[2];  // [1]: the program's, or its supervisor's
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line) != 0)
      throw dse::Failure(std::string("cannot make a socket pair: ") + std::strerror(errno));
    if (pipe2(life, O_CLOEXEC) != 0) {
      close(line[0]), close(line[1]);
      throw dse::Failure(std::string("cannot make a pipe: ") + std::strerror(errno));
    }
    std::swap(life[0], life[1]);
    socket_ = line[0], lifeline_ = life[0];
    const std::string supervisor = own_folder() + "dse_supervise";
    const int error = spawn(supervisor, command, above_standard(line[1]), above_standard(life[1]));
    if (error != 0) {
      close(socket_), close(lifeline_);
      pid_ = -1;
      throw dse::Failure("cannot start '" + command + "' through " + supervisor + ": " + std::strerror(error));
    }
    buffer_.clear();
    closed_ = false;
  }

  // Ends it; how it ended by itself, if it had.
  std::string stop() {
    if (!running()) return "";
    close(socket_);
    int status = 0;
    pid_t ended = 0;  // one that closed its output is about to end: it is given 0.2 s to say how
    for (int i = 0; i < 20 && (ended = waitpid(pid_, &status, WNOHANG)) == 0 && closed_; ++i) usleep(10000);
    const bool by_itself = ended == pid_;
    close(lifeline_);
    for (int i = 0; i < 5000 && ended == 0; ++i) {
      usleep(1000);
      ended = waitpid(pid_, &status, WNOHANG);
    }
    if (ended == 0) kill(pid_, SIGKILL);  // something of it cannot be ended: it waits inside the kernel
    while (ended == 0 && waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    errors_.reset();
    if (!by_itself) return "";
    return WIFEXITED(status) ? "exit status " + std::to_string(WEXITSTATUS(status))
                             : "signal " + std::to_string(WTERMSIG(status));
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

  // The program reads the end of its input, as of a file.
  void end_input() { shutdown(socket_, SHUT_WR); }

 private:
  // A descriptor that no dup2 of the spawned process lands on.
  static int above_standard(int fd) {
    const int moved = fcntl(fd, F_DUPFD_CLOEXEC, 10);
    if (moved < 0) return fd;
    close(fd);
    return moved;
  }

  // Closes `line` and `life` here.
  int spawn(const std::string& supervisor, const std::string& command, int line, int life) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, line, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, line, STDOUT_FILENO);
    errors_ = std::make_unique<ErrorRelay>();
    posix_spawn_file_actions_adddup2(&actions, errors_->descriptor(), STDERR_FILENO);
    posix_spawn_file_actions_adddup2(&actions, life, 3);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t every, none;
    sigfillset(&every), sigemptyset(&none);
    posix_spawnattr_setsigdefault(&attributes, &every);  // what this process ignores is its own business
    posix_spawnattr_setsigmask(&attributes, &none);
    // A group of its own: an interrupt from the terminal is for the engine, which asks on until it stops.
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    const char* arguments[] = {"dse_supervise", command.c_str(), nullptr};
    // What mpirun and Slurm tell this process of its rank is not the program's.
    std::vector<char*> environment;
    for (char** entry = environ; *entry; ++entry) {
      const std::string_view text(*entry);
      if (!text.starts_with("OMPI_") && !text.starts_with("PMIX_") && !text.starts_with("PMI_"))
        environment.push_back(*entry);
    }
    environment.push_back(nullptr);
    const int error = posix_spawn(&pid_, supervisor.c_str(), &actions, &attributes, const_cast<char**>(arguments),
                                  environment.data());
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(line), close(life);
    errors_->started();
    return error;
  }

  // A signal to this process is no deadline: it waits on for what is left.
  bool wait(short events, Clock::time_point until) const {
    for (;;) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
      if (left <= 0) return false;
      pollfd p{socket_, events, 0};
      const int n = poll(&p, 1, int(std::min<int64_t>(left, 1 << 30)));
      if (n > 0) return true;
      if (n < 0 && errno != EINTR && errno != EAGAIN) return false;
    }
  }

  pid_t pid_ = -1;  // of its supervisor
  int socket_ = -1, lifeline_ = -1;
  std::unique_ptr<ErrorRelay> errors_;
  std::string buffer_;
  bool closed_ = false;  // its output
};

}  // namespace process_reward
