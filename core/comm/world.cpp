#include "comm/world.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>
#include <thread>

#include "base/check.h"
#include "base/own_folder.h"
#include "base/processors.h"
#include "base/sha256.h"
#include "comm/local.h"
#include "comm/messages.h"

namespace dsengine {
namespace {

std::optional<int64_t> number_of(const char* variable) {
  const char* const text = std::getenv(variable);
  if (!text) return {};
  const std::string_view all(text);
  int64_t number = 0;
  const auto [end, error] = std::from_chars(all.begin(), all.end(), number);
  if (error != std::errc() || end != all.end() || number < 0) return {};
  return number;
}

// The machine, and whose processors these are: ranks in containers of one machine have names of their own.
std::string machine_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

Transport& mpi() {
  const auto file = plugins_beside_code().parent_path() / "libdsengine_mpi.so";
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL);  // MPI's own plugins look for its symbols
  auto* const open =
      library ? reinterpret_cast<decltype(&dsengine_mpi_transport)>(dlsym(library, "dsengine_mpi_transport")) : nullptr;
  DSE_CHECK_USER(open,
                 "this process is one of several ranks, and MPI cannot be opened: {} (install OpenMPI, and build with "
                 "DSENGINE_MPI=ON)",
                 dlerror());
  const char* why = "";
  Transport* const transport = open(&why);
  DSE_CHECK_USER(transport, "this process is one of several ranks, and MPI cannot be begun: {}", why);
  return *transport;
}

}  // namespace

WorldPlace world_place() {
  using By = WorldPlace::By;
  const auto place = [](const char* rank, const char* size, By by) -> std::optional<WorldPlace> {
    const auto own = number_of(rank), all = number_of(size);
    if (!own || !all || *all < 2 || *own >= *all) return {};
    return WorldPlace{*own, *all, by};
  };
  if (const auto found = place("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", By::mpi)) return *found;
  if (std::getenv("PMIX_RANK") || std::getenv("PMI_RANK"))  // Slurm with an MPI that it knows; else each task is alone
    if (const auto found = place("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", By::mpi)) return *found;
  if (const auto found = place("RANK", "WORLD_SIZE", By::torchrun)) return *found;
  return {};
}

bool told_by_rank_0() {
  const WorldPlace place = world_place();
  return place.by == WorldPlace::By::mpi && place.rank > 0;
}

void wait_to_be_ended() { std::this_thread::sleep_for(std::chrono::minutes(10)); }

std::unique_ptr<Communicator> open_world() {
  const WorldPlace place = world_place();
  if (place.by == WorldPlace::By::alone) return std::make_unique<LocalCommunicator>();
  DSE_CHECK_USER(
      place.by == WorldPlace::By::mpi,
      "RANK and WORLD_SIZE ask for {} ranks (as torchrun sets them), which have nothing to speak with on the "
      "cpu: start them with mpirun -n {}",
      place.size, place.size);
  Transport& transport = mpi();
  DSE_CHECK_USER(transport.size() == place.size,
                 "the environment says {} ranks, MPI knows of {}: srun wants --mpi=pmix, or start them with mpirun",
                 place.size, transport.size());
  return std::make_unique<MessageCommunicator>(transport);
}

void check_alike(Communicator& ranks, const char* what, const std::string& text) {
  const Communicator::Purpose purpose(ranks, what);
  const auto hashes = ranks.gather_bytes(sha256_hex(text));
  const auto other = std::ranges::find_if(hashes, [&](const auto& hash) { return hash != hashes[0]; });
  DSE_CHECK_USER(other == hashes.end(),
                 "rank {} has other {} than rank 0 (SHA-256 {}… and {}…): every rank reads the same files",
                 other - hashes.begin(), what, other->substr(0, 12), hashes[0].substr(0, 12));
}

Neighbours neighbours_of(Communicator& ranks) {
  const std::string machine = machine_name();
  std::string mine = machine;
  const auto own = allowed_processors();
  for (const int processor : own) mine += fmt::format(" {}", processor);
  std::map<int, int64_t> users;
  Neighbours result{0, 0};
  for (const auto& text : ranks.gather_bytes(mine)) {
    std::istringstream words(text);
    std::string name;
    words >> name;
    if (name != machine) continue;
    ++result.ranks;
    for (int processor = 0; words >> processor;) ++users[processor];
  }
  for (const int processor : own) result.processors += 1 / double(users[processor]);
  const int64_t granted = available_processors();
  if (granted < int64_t(own.size()))  // a control group's share of time, which ranks have together
    result.processors = std::min(result.processors, double(granted) / double(result.ranks));
  return result;
}

}  // namespace dsengine
