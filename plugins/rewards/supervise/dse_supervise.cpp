// dse_supervise COMMAND: runs a shell command so that nothing of it outlives who asked for it.
//
// The asker alone holds the other end of the pipe on file descriptor 3. When that end closes, because the asker is done
// or was killed, the program and all that it started are ended by SIGKILL: whatever signals they ignore, whatever they
// read, and whatever session they made themselves, for this process becomes the parent of what loses its own. It ends
// as the program ends, once nothing of it is left; what a program leaves behind that failed is ended with it.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int kLifeline = 3;

pid_t parent_of(const char* pid) {
  char path[64], text[512];
  std::snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return -1;
  const auto n = read(file, text, sizeof text - 1);
  close(file);
  text[n > 0 ? n : 0] = 0;
  const char* end = std::strrchr(text, ')');  // "pid (name) state parent …", and a name may hold anything
  int parent = -1;
  return end && std::sscanf(end + 1, " %*c %d", &parent) == 1 ? parent : -1;
}

void kill_children() {
  DIR* processes = opendir("/proc");
  if (!processes) return;
  while (const dirent* entry = readdir(processes))
    if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && parent_of(entry->d_name) == getpid())
      kill(std::atoi(entry->d_name), SIGKILL);
  closedir(processes);
}

// What a killed process leaves behind becomes a child of this one, and is ended in the next round.
void end_all(pid_t program) {
  do {
    kill(-program, SIGKILL);
    kill_children();
  } while (waitpid(-1, nullptr, 0) > 0 || errno == EINTR);
}

[[noreturn]] void run(const char* command, pid_t supervisor) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != supervisor) _exit(127);
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execl("/bin/sh", "sh", "-c", command, nullptr);
  std::perror("/bin/sh");
  _exit(127);
}

[[noreturn]] void end_like(int status) {
  if (WIFSIGNALED(status)) {
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    sigset_t none;
    sigemptyset(&none);
    signal(WTERMSIG(status), SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    raise(WTERMSIG(status));
  }
  _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 || fcntl(kLifeline, F_SETFD, FD_CLOEXEC) != 0) {
    std::fputs("dse_supervise is started by the reward 'process'\n", stderr);
    return 127;
  }
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  sigset_t all;
  sigfillset(&all);  // only SIGKILL ends it, and then the program too
  sigprocmask(SIG_SETMASK, &all, nullptr);
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  const int ended = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK), self = getpid();
  const pid_t program = fork();
  if (program == 0) run(argv[1], self);
  if (program < 0 || ended < 0) return 127;
  // The program's ends are its own, so that the asker sees it close them.
  const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
  dup2(nothing, STDIN_FILENO), dup2(nothing, STDOUT_FILENO);

  int status = 0, how_it_ended = 0;
  for (bool failed = false;;) {
    pollfd events[] = {{kLifeline, POLLIN, 0}, {ended, POLLIN, 0}};
    poll(events, 2, -1);
    signalfd_siginfo info;
    while (read(ended, &info, sizeof info) > 0) {
    }
    pid_t gone;
    while ((gone = waitpid(-1, &status, WNOHANG)) > 0)
      if (gone == program) how_it_ended = status, failed = status != 0;
    if (failed || events[0].revents != 0) end_all(program);
    if (gone < 0 || failed || events[0].revents != 0) break;  // nothing of it is left
  }
  end_like(how_it_ended);
}
