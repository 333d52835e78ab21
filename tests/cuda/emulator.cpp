#include "emulator.h"

#include <ucontext.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <vector>

namespace emulator {

Place here;
dim3 grid, block_size;
unsigned char* shared = nullptr;

namespace {

constexpr size_t kStack = 64 << 10;
constexpr unsigned kLanes = 32;
constexpr size_t kMostBytes = 16;  // a lane's in an exchange

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "emulator: %s (block %u %u %u)\n", what, here.block.x, here.block.y, here.block.z);
  std::abort();
}

// Begun by makecontext, and from then on left and entered by _setjmp and _longjmp, which ask nothing of the system.
struct Coroutine {
  ucontext_t context;
  jmp_buf place;
  std::unique_ptr<char[]> stack{new char[kStack]};
};

struct Thread {
  enum class State { waiting_to_start, running, at_barrier, in_exchange, done } state = State::waiting_to_start;
  Coroutine* on = nullptr;
};

// Two rounds of exchanges: a lane may be in the next one while others read this one.
struct Warp {
  unsigned arrived = 0, round = 0;
  alignas(16) unsigned char values[2][kLanes * kMostBytes];
};

class Block {
 public:
  void run(int threads, const std::function<void()>& kernel, bool backwards) {
    kernel_ = &kernel, threads_.assign(size_t(threads), {}), warps_.assign(size_t(threads) / kLanes, {});
    for (int left = threads; left > 0;) {
      bool moved = false;
      for (int i = 0; i < threads; ++i) {
        const int t = backwards ? threads - 1 - i : i;
        if (!may_run(t)) continue;
        moved = true;
        left -= go_on(t);
      }
      if (!moved) meet(left);
    }
  }

  void wait(Thread::State state) {
    Thread& thread = threads_[size_t(now_)];
    thread.state = state;
    const Place place = here;
    if (_setjmp(thread.on->place) == 0) _longjmp(main_, 1);
    here = place;
  }
  Warp& warp() { return warps_[size_t(now_) / kLanes]; }

 private:
  bool may_run(int t) const {
    const auto state = threads_[size_t(t)].state;
    return state == Thread::State::waiting_to_start || state == Thread::State::running;
  }

  // Until it waits or ends; returns how many ended: threads that never wait follow each other on one coroutine.
  int go_on(int t) {
    ended_ = 0, now_ = t;
    Thread& thread = threads_[size_t(t)];
    const bool starts = thread.state == Thread::State::waiting_to_start;
    thread.state = Thread::State::running;
    if (starts) {
      if (idle_.empty()) idle_.push_back(fresh());
      thread.on = idle_.back();
      idle_.pop_back();
    }
    if (_setjmp(main_) == 0) _longjmp(thread.on->place, 1);
    return ended_;
  }

  // One that runs the thread that is its turn, and then the next one that it is given.
  Coroutine* fresh() {
    Coroutine* const made = all_.emplace_back(std::make_unique<Coroutine>()).get();
    getcontext(&made->context);
    made->context.uc_stack.ss_sp = made->stack.get(), made->context.uc_stack.ss_size = kStack;
    made->context.uc_link = nullptr;
    current_ = this, made_ = made;
    makecontext(
        &made->context, +[] { current_->serve(); }, 0);
    if (_setjmp(main_) == 0) setcontext(&made->context);
    return made;
  }
  [[noreturn]] void serve() {
    Coroutine* const own = made_;
    for (;;) {
      if (_setjmp(own->place) == 0) _longjmp(main_, 1);
      const int t = now_;
      here.thread = dim3(unsigned(t), 0, 0);
      (*kernel_)();
      threads_[size_t(t)].state = Thread::State::done, ended_ = 1;
      idle_.push_back(own);
    }
  }

  // Nobody can run: those at the barrier go on where all that are left are there; a whole warp in an exchange does.
  void meet(int left) {
    bool moved = false;
    for (size_t w = 0; w < warps_.size(); ++w)
      if (warps_[w].arrived == kLanes) {
        warps_[w].arrived = 0, ++warps_[w].round, moved = true;
        for (size_t t = w * kLanes; t < (w + 1) * kLanes; ++t) threads_[t].state = Thread::State::running;
      }
    if (moved) return;
    int there = 0;
    for (const Thread& thread : threads_) there += thread.state == Thread::State::at_barrier;
    if (there < left) fail("a barrier, or an exchange between lanes, that not all threads reach");
    for (Thread& thread : threads_)
      if (thread.state == Thread::State::at_barrier) thread.state = Thread::State::running;
  }

  static inline Block* current_ = nullptr;
  const std::function<void()>* kernel_ = nullptr;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<std::unique_ptr<Coroutine>> all_;
  std::vector<Coroutine*> idle_;
  Coroutine* made_ = nullptr;
  jmp_buf main_;
  int now_ = 0, ended_ = 0;
};

Block& block() {
  static Block& only = *new Block;
  return only;
}

}  // namespace

void meet_block() { block().wait(Thread::State::at_barrier); }

const unsigned char* gather(const void* mine, size_t size) {
  if (size > kMostBytes) fail("an exchange of too many bytes");
  Warp& warp = block().warp();
  unsigned char* const values = warp.values[warp.round % 2];
  std::memcpy(values + here.thread.x % kLanes * size, mine, size);
  ++warp.arrived;
  block().wait(Thread::State::in_exchange);
  return values;
}

void exchange(const void* mine, void* theirs, size_t size, unsigned from) {
  std::memcpy(theirs, gather(mine, size) + from * size, size);
}

namespace {

// The low or the high half of a word, a bfloat16.
float half_of(uint32_t word, unsigned high) {
  const uint32_t bits = (high ? word >> 16 : word & 0xffffu) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace

void multiply_add(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  const uint32_t own_a[4] = {a0, a1, a2, a3}, own_b[2] = {b0, b1};
  uint32_t a[kLanes][4], b[kLanes][2];
  std::memcpy(a, gather(own_a, sizeof own_a), sizeof a);
  std::memcpy(b, gather(own_b, sizeof own_b), sizeof b);
  const unsigned lane = here.thread.x % kLanes, g = lane / 4, t = lane % 4;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = g + i / 2 * 8, column = 2 * t + i % 2;
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned of_k = k % 8 / 2;
      c[i] += half_of(a[row % 8 * 4 + of_k][row / 8 + k / 8 * 2], k % 2) * half_of(b[column * 4 + of_k][k / 8], k % 2);
    }
  }
}

uint32_t transposed(uint32_t x) {
  uint32_t all[kLanes];
  std::memcpy(all, gather(&x, sizeof x), sizeof all);
  const unsigned lane = here.thread.x % kLanes, row = lane / 4, column = lane % 4 * 2;
  uint32_t made = 0;
  for (unsigned i = 0; i < 2; ++i) {
    const uint32_t word = all[(column + i) * 4 + row / 2];
    made |= (row % 2 ? word >> 16 : word & 0xffffu) << 16 * i;
  }
  return made;
}

void run(dim3 blocks, int threads, size_t shared_bytes, const std::function<void()>& kernel) {
  if (threads <= 0 || threads % int(kLanes) != 0 || threads > 1024) fail("a block is whole warps, 32 at most");
  if (shared_bytes > 227 << 10) fail("more shared memory than a block can have");
  const char* const order = std::getenv("DSENGINE_EMULATOR");
  const bool backwards = order && order == std::string_view("backwards");
  static std::vector<double> memory;  // aligned
  memory.resize(shared_bytes / sizeof(double) + 2);
  shared = reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(memory.data()) + 15) / 16 * 16);
  grid = blocks, block_size = dim3(unsigned(threads));
  const uint64_t all = uint64_t(blocks.x) * blocks.y * blocks.z;
  for (uint64_t i = 0; i < all; ++i) {
    const uint64_t b = backwards ? all - 1 - i : i;
    here.block = dim3(unsigned(b % blocks.x), unsigned(b / blocks.x % blocks.y), unsigned(b / blocks.x / blocks.y));
    std::memset(shared, 0xff, shared_bytes);  // not a number
    block().run(threads, kernel, backwards);
  }
}

}  // namespace emulator
