// libdsengine_mpi: bytes between processes by MPI's messages between two ranks, which do not block, so that whoever
// waits can give up.
#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "comm/transport.h"

namespace dsengine {
namespace {

constexpr size_t kMessage = size_t{1} << 30;  // MPI counts in int

void check(int status) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw std::runtime_error("MPI: " + std::string(text, size_t(length)));
}

class MpiTransport : public Transport {
 public:
  MpiTransport() {
    int begun = 0, thread_level = 0;
    check(MPI_Initialized(&begun));
    if (!begun) check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &thread_level));
    ours_ = !begun;
    check(MPI_Comm_dup(MPI_COMM_WORLD, &ranks_));
    check(MPI_Comm_set_errhandler(ranks_, MPI_ERRORS_RETURN));
    check(MPI_Comm_rank(ranks_, &rank_));
    check(MPI_Comm_size(ranks_, &size_));
    requests_.resize(size_t(size_));
  }

  int64_t rank() const override { return rank_; }
  int64_t size() const override { return size_; }

  void begin(std::span<const std::span<const std::byte>> to, std::span<const std::span<std::byte>> from) override {
    const auto each_message = [&](const auto& bytes, const auto& f) {
      for (size_t at = 0; at < bytes.size(); at += kMessage)
        check(f(bytes.data() + at, int(std::min(kMessage, bytes.size() - at))));
    };
    for (int r = 0; r < size_; ++r) {
      requests_[size_t(r)].clear();
      if (r == rank_) continue;
      each_message(from[size_t(r)], [&](std::byte* data, int count) {
        return MPI_Irecv(data, count, MPI_BYTE, r, 0, ranks_, &requests_[size_t(r)].emplace_back());
      });
    }
    for (int step = 1; step < size_; ++step) {  // each to another first
      const int r = (rank_ + step) % size_;
      each_message(to[size_t(r)], [&](const std::byte* data, int count) {
        return MPI_Isend(data, count, MPI_BYTE, r, 0, ranks_, &requests_[size_t(r)].emplace_back());
      });
    }
  }

  bool arrived(int64_t r) override { return all_of(requests_[size_t(r)]); }
  bool done() override {
    bool all = true;
    for (auto& requests : requests_) all &= all_of(requests);
    return all;
  }

  void abandon() override { ours_ = false; }
  // Waits for all ranks to come here.
  void end() noexcept {
    int ended = 0;
    if (ours_ && MPI_Finalized(&ended) == MPI_SUCCESS && !ended) MPI_Finalize();
  }

 private:
  static bool all_of(std::vector<MPI_Request>& requests) {
    int all = 0;
    check(MPI_Testall(int(requests.size()), requests.data(), &all, MPI_STATUSES_IGNORE));
    return all != 0;
  }

  MPI_Comm ranks_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  bool ours_ = false;                               // to be ended
  std::vector<std::vector<MPI_Request>> requests_;  // by rank: what comes from it, and goes to it
};

MpiTransport* opened = nullptr;

}  // namespace
}  // namespace dsengine

extern "C" __attribute__((visibility("default"))) dsengine::Transport* dsengine_mpi_transport(const char** why) {
  static std::string failed;
  using namespace dsengine;
  if (!opened) try {
      opened = new MpiTransport;
      std::atexit([] { opened->end(); });
    } catch (const std::exception& e) {
      failed = e.what();
      *why = failed.c_str();
      return nullptr;
    }
  return opened;
}
