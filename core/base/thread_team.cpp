#include "base/thread_team.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace dsengine {
namespace {

// What it costs to wake a thread that sleeps, about: who waits for one that was woken must not sleep before it is
// there.
constexpr std::chrono::microseconds kSpin{50};

thread_local bool loops_inline = false;

std::atomic<int64_t> forks{0};

int64_t count_forks() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { ++forks; });
  (void)registered;
  return forks;
}

int64_t divup(int64_t a, int64_t b) { return (a + b - 1) / b; }

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

LoopsInline::LoopsInline() : before_(loops_inline) { loops_inline = true; }
LoopsInline::~LoopsInline() { loops_inline = before_; }

// A loop in progress, on its caller's stack. Chunks are taken as they come: while a thread waits for its turn on a busy
// machine, another does its part.
struct ThreadTeam::Job {
  const int64_t begin, end, chunk, chunks;
  const Body body;
  void* const context;
  std::atomic<int64_t> next{0};
  std::atomic<int> helpers{0};  // threads besides the caller; changes under mutex_
  bool awaited = false;         // the caller sleeps; under mutex_
  std::atomic_flag failed = ATOMIC_FLAG_INIT;
  std::exception_ptr failure{};

  bool open() const { return next.load(std::memory_order_relaxed) < chunks; }

  void run() {
    const LoopsInline nested;
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) {
      const int64_t first = begin + i * chunk;
      try {
        body(context, first, std::min(end, first + chunk));
      } catch (...) {
        if (!failed.test_and_set()) failure = std::current_exception();
      }
    }
  }
};

struct ThreadTeam::State {
  explicit State(int threads) : size(threads) {}
  void share(Job& job);
  void work();
  Job* open_job() const;
  template <class Ready>
  bool spin(const Ready& ready) const;

  const int size;
  std::atomic<int> at_work{0};      // threads that compute or look for work, callers among them
  std::atomic<uint64_t> posted{0};  // jobs so far; changes under mutex
  std::mutex mutex;                 // of all below
  std::condition_variable wake, finished;
  std::vector<Job*> jobs{};
  int asleep = 0;
  bool ends = false;
  std::vector<std::thread> threads{};
};

ThreadTeam::ThreadTeam(int size)
    : size_(std::max(1, size)), forks_(count_forks()), state_(std::make_unique<State>(size_)) {
  try {
    for (int i = 1; i < size_; ++i) state_->threads.emplace_back([state = state_.get()] { state->work(); });
  } catch (const std::system_error&) {  // the system has no more: who there is does the rest's chunks
  }
}

ThreadTeam::~ThreadTeam() {
  if (forks_ != forks) {  // the threads are another process's, and what they waited on here waits for them for ever
    (void)state_.release();
    return;
  }
  {
    const std::scoped_lock lock(state_->mutex);
    state_->ends = true;
    ++state_->posted;
  }
  state_->wake.notify_all();
  for (auto& thread : state_->threads) thread.join();
}

void ThreadTeam::parallel_for(int64_t begin, int64_t end, int64_t grain, Body body, void* context) {
  if (begin >= end) return;
  const int64_t count = end - begin;
  const int64_t threads = grain > 0 ? std::min<int64_t>(size_, divup(count, grain)) : size_;
  if (threads == 1 || count <= std::max<int64_t>(1, grain) || loops_inline || forks_ != forks) {
    const LoopsInline nested;
    return body(context, begin, end);
  }
  const int64_t chunk = divup(count, threads);
  Job job{begin, end, chunk, divup(count, chunk), body, context};
  ++state_->at_work;
  state_->share(job);
  --state_->at_work;
  if (job.failure) std::rethrow_exception(job.failure);
}

void ThreadTeam::State::share(Job& job) {
  int64_t woken = 0;
  {
    const std::scoped_lock lock(mutex);
    jobs.push_back(&job);
    ++posted;
    woken = std::min<int64_t>(asleep, job.chunks - 1);
  }
  for (int64_t i = 0; i < woken; ++i) wake.notify_one();
  job.run();
  {
    const std::scoped_lock lock(mutex);
    std::erase(jobs, &job);  // from here on nobody joins
  }
  const auto done = [&job] { return job.helpers.load(std::memory_order_acquire) == 0; };
  if (spin(done)) return;
  std::unique_lock lock(mutex);
  job.awaited = true;
  finished.wait(lock, done);
}

void ThreadTeam::State::work() {
  std::fesetenv(FE_DFL_ENV);  // whoever made the team may have set its own
  ++at_work;
  std::unique_lock lock(mutex);
  while (!ends) {
    if (Job* job = open_job()) {
      ++job->helpers;
      lock.unlock();
      job->run();
      lock.lock();
      const bool awaited = job->awaited;  // when its last helper has left, the job is gone
      if (job->helpers.fetch_sub(1, std::memory_order_acq_rel) == 1 && awaited) finished.notify_all();
      continue;
    }
    const auto is_posted = [this, seen = posted.load()] { return posted.load(std::memory_order_acquire) != seen; };
    lock.unlock();
    spin(is_posted);
    lock.lock();
    if (is_posted()) continue;
    ++asleep;
    --at_work;
    wake.wait(lock, is_posted);
    ++at_work;
    --asleep;
  }
}

ThreadTeam::Job* ThreadTeam::State::open_job() const {
  for (Job* job : jobs)
    if (job->open()) return job;
  return nullptr;
}

// Whether it was ready in time.
template <class Ready>
bool ThreadTeam::State::spin(const Ready& ready) const {
  if (ready()) return true;
  const auto until = std::chrono::steady_clock::now() + kSpin;
  while (at_work.load(std::memory_order_relaxed) <= size && std::chrono::steady_clock::now() < until)
    for (int i = 0; i < 16; ++i) {
      pause_briefly();
      if (ready()) return true;
    }
  return ready();
}

}  // namespace dsengine
