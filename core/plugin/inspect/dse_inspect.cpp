// dse_inspect FILE: opens a plugin and writes what it holds, or why it cannot be used, as one JSON line to file
// descriptor 3. A process of its own, for opening a library runs its constructors (plugin/plugin_index.h).
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "base/check.h"
#include "plugin/library.h"
#include "plugin/plugin_index.h"

int main(int argc, char** argv) {
  using namespace dsengine;
  constexpr int answer = 3;
  if (argc != 2 || fcntl(answer, F_SETFD, FD_CLOEXEC) != 0) return 2;
  spdlog::set_level(spdlog::level::off);
  Json json;
  try {
    json = PluginIndex::of(PluginLibrary(argv[1])).to_json();
  } catch (const UserError& e) {
    json = {{"error", e.what()}};
  }
  const std::string line = json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  for (size_t at = 0; at < line.size();) {
    const auto n = write(answer, line.data() + at, line.size() - at);
    if (n <= 0) break;
    at += size_t(n);
  }
  _exit(0);  // without the library's destructors
}
