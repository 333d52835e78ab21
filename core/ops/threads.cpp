#include "ops/threads.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <memory>

#include "base/thread_team.h"
#include "plugin/host.h"

// Of the OpenMP and the MKL that LibTorch is built with, per thread; weak: a build of it may have neither.
extern "C" {
[[gnu::weak]] void omp_set_num_threads(int threads);
[[gnu::weak]] int MKL_Set_Num_Threads_Local(int threads);  // NOLINT: its own name; returns what it was
}

namespace dsengine {
namespace {

using Body = ThreadTeam::Body;

// Never destroyed: a program may end while its threads are in a loop.
std::atomic<std::shared_ptr<ThreadTeam>>& team() {
  static auto& team = *new std::atomic<std::shared_ptr<ThreadTeam>>;
  return team;
}

// Around a body: LibTorch starts no threads of its own from this one, neither for its loops nor in MKL.
class LibTorchInline {
 public:
  LibTorchInline() {
    if (omp_set_num_threads) omp_set_num_threads(1);
    if (MKL_Set_Num_Threads_Local) mkl_before_ = MKL_Set_Num_Threads_Local(1);
  }
  ~LibTorchInline() {
    if (MKL_Set_Num_Threads_Local) MKL_Set_Num_Threads_Local(mkl_before_);
    if (omp_set_num_threads) omp_set_num_threads(before_);
  }

 private:
  const int before_ = at::get_num_threads();  // the first on a thread sets it up, which must not come later
  int mkl_before_ = 0;
};

struct Call {
  Body body;
  void* context;
  static void run(void* to, int64_t first, int64_t last) {
    const LibTorchInline one;
    const auto& call = *static_cast<Call*>(to);
    call.body(call.context, first, last);
  }
};

}  // namespace

void set_up_team(int threads) {
  const auto now = team().load();
  if (!now || now->size() != threads) team().store(std::make_shared<ThreadTeam>(threads));
  at::set_num_threads(threads);
  set_parallel_for(parallel_for);
}

void parallel_for(int64_t begin, int64_t end, int64_t grain, Body body, void* context) {
  Call call{body, context};
  if (const auto now = team().load())
    now->parallel_for(begin, end, grain, Call::run, &call);
  else if (begin < end)
    Call::run(&call, begin, end);
}

OneThread::OneThread() : before_(at::get_num_threads()) { at::set_num_threads(1); }
OneThread::~OneThread() { at::set_num_threads(before_); }

}  // namespace dsengine
