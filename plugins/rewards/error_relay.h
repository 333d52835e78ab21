// A program's standard error, passed on to the engine's line by line: control characters of it, which a terminal would
// obey, become '?', and so do bytes that are not UTF-8.
//
//   ErrorRelay relay;
//   posix_spawn_file_actions_adddup2(&actions, relay.descriptor(), STDERR_FILENO);
//   …                                                       // spawn
//   relay.started();                                        // the program has the only end to write to now
//
// It ends with the program, or when it is destroyed; what was written until then is passed on.
#pragma once
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>
#include <dsengine/plugin.hpp>

#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>

namespace process_reward {

class ErrorRelay {
 public:
  ErrorRelay() {
    if (pipe2(text_, O_CLOEXEC) != 0 || pipe2(end_, O_CLOEXEC) != 0)
      throw dse::Failure(std::string("cannot make a pipe: ") + std::strerror(errno));
    fcntl(text_[0], F_SETFL, O_NONBLOCK);
    // Signals are for the engine's own threads: the new one inherits a mask that takes none.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  ErrorRelay(const ErrorRelay&) = delete;
  ErrorRelay& operator=(const ErrorRelay&) = delete;
  ~ErrorRelay() {
    started();
    close(end_[1]);
    thread_.join();
    close(end_[0]), close(text_[0]);
  }

  int descriptor() const { return text_[1]; }
  void started() {
    if (text_[1] >= 0) close(text_[1]);
    text_[1] = -1;
  }

 private:
  // Bytes of the UTF-8 character at i; 0 where there is none.
  static size_t character(std::string_view s, size_t i) {
    const auto byte = [&](size_t k) { return i + k < s.size() ? uint8_t(s[i + k]) : uint8_t{0}; };
    const uint8_t lead = byte(0);
    const size_t n = lead < 0x80                   ? 1
                     : lead >= 0xC2 && lead < 0xE0 ? 2
                     : lead >= 0xE0 && lead < 0xF0 ? 3
                     : lead >= 0xF0 && lead < 0xF5 ? 4
                                                   : 0;
    for (size_t k = 1; k < n; ++k)
      if ((byte(k) & 0xC0) != 0x80) return 0;
    return n;
  }

  static void write_line(std::string_view line) {
    std::string shown;
    for (size_t i = 0; i < line.size();) {
      const size_t n = character(line, i);
      const auto first = uint8_t(line[i]);
      const bool c1 = n == 2 && first == 0xC2 && uint8_t(line[i + 1]) < 0xA0;
      const bool control = n == 0 || c1 || first == 0x7F || (first < 0x20 && line[i] != '\t' && line[i] != '\n');
      shown += control ? "?" : line.substr(i, n);
      i += n == 0 ? 1 : n;
    }
    for (size_t done = 0; done < shown.size();) {
      const ssize_t count = write(STDERR_FILENO, shown.data() + done, shown.size() - done);
      if (count < 0 && errno != EINTR) return;  // a terminal that is gone is no reason to end the run
      if (count > 0) done += size_t(count);
    }
  }

  void run() {
    constexpr size_t kLongest = 1 << 16;  // a line without end is passed on in parts
    std::string waiting;
    for (bool last = false; !last;) {
      pollfd wanted[] = {{text_[0], POLLIN, 0}, {end_[0], POLLIN, 0}};
      if (poll(wanted, 2, -1) < 0 && errno != EINTR) break;
      last = wanted[1].revents != 0;
      char piece[4096];
      for (ssize_t count; (count = read(text_[0], piece, sizeof piece)) != 0;) {
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) break;  // nothing more for now
        waiting.append(piece, size_t(count));
        for (size_t end; (end = waiting.find_first_of("\r\n")) != waiting.npos || waiting.size() > kLongest;) {
          const size_t size = std::min(end, kLongest);
          write_line(waiting.substr(0, size) + "\n");
          waiting.erase(0, size + (end == size ? 1 : 0));
        }
      }
      if (wanted[0].revents & (POLLHUP | POLLERR)) last = true;  // the program and its children are gone
    }
    if (!waiting.empty()) write_line(waiting + "\n");
  }

  int text_[2], end_[2];
  std::thread thread_;
};

}  // namespace process_reward
