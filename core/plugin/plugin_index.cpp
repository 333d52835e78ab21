#include "plugin/plugin_index.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "base/check.h"
#include "base/directory.h"
#include "base/own_folder.h"
#include "base/sha256.h"
#include "plugin/elf_file.h"
#include "plugin/library.h"

extern char** environ;  // NOLINT(readability-redundant-declaration): POSIX wants it declared

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(10);  // for a library to be opened

// kind, name, version, summary, architectures (or a kernel's device) …, each ended by a zero.
std::optional<PluginIndex::Entry> entry_of(std::string_view text) {
  std::vector<std::string> fields;
  while (!text.empty()) {
    const auto end = text.find('\0');
    if (end == text.npos) return std::nullopt;
    fields.emplace_back(text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  if (fields.size() < 4 || fields[1].empty()) return std::nullopt;
  for (uint32_t kind = DSE_ALGORITHM; kind <= DSE_KERNEL; ++kind)
    if (fields[0] == item_kind_name(kind))
      return PluginIndex::Entry{kind, fields[1], fields[2], fields[3], {fields.begin() + 4, fields.end()}};
  return std::nullopt;
}

fs::path cache_file(const std::string& sha256) {
  const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  const fs::path folder = cache && *cache == '/' ? fs::path(cache)
                          : home && *home == '/' ? fs::path(home) / ".cache"
                                                 : "";
  return folder.empty() ? folder : folder / "dsengine/plugins" / (sha256 + ".json");
}

// Null where there is none, or none that can be read: the library is then asked again.
Json read_cache(const fs::path& file) {
  std::error_code error;
  if (file.empty() || !fs::is_regular_file(file, error)) return {};
  try {
    return read_json(file);
  } catch (const UserError&) {
    return {};
  }
}

// A cache that cannot be written is none.
void write_cache(const fs::path& file, const Json& json) {
  if (file.empty()) return;
  std::error_code error;
  const fs::path fresh = file.string() + fmt::format(".tmp-{}", getpid());
  try {
    make_directories(file.parent_path());
    write_text(fresh, json.dump() + "\n");
    fs::rename(fresh, file, error);
  } catch (const UserError&) {
    fs::remove(fresh, error);
  }
}

struct Answer {
  std::string text;      // up to the line's end
  bool in_time = false;  // it ended, or answered, within kPatience
  int status = 0;        // as of waitpid, where it ended without an answer
};

// Asks dse_inspect for `file` on its descriptor 3; what the library prints goes nowhere.
Answer ask(const fs::path& program, const fs::path& file) {
  int ends[2];
  DSE_CHECK_USER(pipe2(ends, O_CLOEXEC) == 0, "cannot make a pipe: {}", std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 3);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);  // so that what the library starts is ended with it
  const char* arguments[] = {"dse_inspect", file.c_str(), nullptr};
  pid_t child = -1;
  const int error = posix_spawn(&child, program.c_str(), &actions, &attributes, const_cast<char**>(arguments), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  close(ends[1]);
  Answer answer;
  const auto until = Clock::now() + kPatience;
  bool open = error == 0;
  while (open) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    pollfd p{ends[0], POLLIN, 0};
    if (left <= 0) break;
    if (poll(&p, 1, int(left)) <= 0) continue;
    char piece[4096];
    const auto n = read(ends[0], piece, sizeof piece);
    if (n < 0 && errno == EINTR) continue;
    if (n > 0) answer.text.append(piece, size_t(n));
    open = n > 0 && !answer.text.ends_with('\n');
  }
  close(ends[0]);
  DSE_CHECK_USER(error == 0, "cannot start {}: {}; install it again", program.string(), std::strerror(error));
  answer.in_time = answer.text.ends_with('\n');
  while (!answer.in_time && Clock::now() < until) {  // it gave none: how did it end?
    answer.in_time = waitpid(child, &answer.status, WNOHANG) == child;
    usleep(1000);
  }
  kill(-child, SIGKILL);
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return answer;
}

std::string ending(int status) {
  return WIFEXITED(status) ? fmt::format("ended the process that opened it (exit status {})", WEXITSTATUS(status))
                           : fmt::format("ended the process that opened it by signal {}", WTERMSIG(status));
}

}  // namespace

PluginIndex PluginIndex::of_notes(const fs::path& file) {
  PluginIndex index;
  for (const auto& text : item_notes(file)) {
    auto entry = entry_of(text);
    if (!entry) return {};
    index.items.push_back(std::move(*entry));
  }
  return index;
}

PluginIndex PluginIndex::of(const fs::path& file) {
  PluginLibrary::check_form(file);
  PluginIndex index = of_notes(file);
  return index.items.empty() ? of_process(file) : index;
}

PluginIndex PluginIndex::of(const PluginLibrary& library) {
  PluginIndex index;
  for (const auto& item : library.items()) {
    std::vector<std::string> said;
    if (item.kind == DSE_MODEL) said = item.architectures();
    if (item.kind == DSE_KERNEL && item.kernel().device == DSE_CUDA) said = {kCardKernel};
    index.items.push_back({item.kind, item.name, item.version, item.summary, std::move(said)});
  }
  return index;
}

PluginIndex PluginIndex::of_process(const fs::path& file, bool anew) {
  const std::string what = "plugin " + file.string();
  const fs::path cached = cache_file(PluginLibrary::check_file(file));
  const std::string slow =
      fmt::format("{}: did not come back from being opened within {} s; `dsengine plugins verify {}` tries it again",
                  what, kPatience.count(), file.string());
  try {
    const Json known = anew ? Json() : read_cache(cached);
    DSE_CHECK_USER(!known.contains("hangs"), "{}", slow);
    if (known.contains("items")) return from_json(known);
  } catch (const Json::exception&) {  // of another form: asked anew
  }
  const Answer answer = ask(plugins_beside_code() / "dse_inspect", file);
  if (!answer.in_time) write_cache(cached, {{"hangs", true}});
  DSE_CHECK_USER(answer.in_time, "{}", slow);
  DSE_CHECK_USER(answer.text.ends_with('\n'), "{}: {}; ask its author", what, ending(answer.status));
  try {
    const Json found = Json::parse(answer.text);
    if (found.contains("error")) throw UserError(found["error"].get<std::string>());
    const auto index = from_json(found);
    write_cache(cached, found);
    return index;
  } catch (const Json::exception&) {
    throw UserError(what + ": gave no list of its items when it was opened in a process of its own; ask its author");
  }
}

Json PluginIndex::to_json() const {
  Json list = Json::array();
  for (const auto& item : items)
    list.push_back({{"kind", item.kind},
                    {"name", item.name},
                    {"version", item.version},
                    {"summary", item.summary},
                    {"architectures", item.architectures}});
  return {{"items", list}};
}

PluginIndex PluginIndex::from_json(const Json& json) {
  PluginIndex index;
  for (const auto& item : json.at("items"))
    index.items.push_back(
        {item.at("kind"), item.at("name"), item.at("version"), item.at("summary"), item.at("architectures")});
  return index;
}

}  // namespace dsengine
