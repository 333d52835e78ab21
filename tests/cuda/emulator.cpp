#include "emulator.h"

#include <ucontext.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <vector>

namespace emulator {

Place here;
dim3 grid, block_size;

namespace {

constexpr size_t kStack = 64 << 10;
constexpr unsigned kLanes = 32, kMostBlocks = 8, kNamedBarriers = 16;
constexpr size_t kMostBytes = 16;           // a lane's in an exchange
constexpr size_t kSharedBytes = 227 << 10;  // the most that a block can have
constexpr size_t kRegion = 256 << 10;       // of a block's addresses
constexpr size_t kFirst = 16;               // where its dynamic memory begins: no more can be relied on
constexpr unsigned kBlockOfAddress = 24;    // bits below are of the block's own memory

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

// A product whose operands are not read yet.
struct Multiplying {
  float* sums;
  int columns;
  uint64_t a, b;
  bool add;
};

struct Thread {
  enum class State {
    waiting_to_start,
    running,
    at_barrier,
    in_exchange,
    at_named,
    at_cluster,
    at_bytes,
    done
  } state = State::waiting_to_start;
  Coroutine* on = nullptr;
  unsigned named = 0, named_generation = 0, cluster_generation = 0;  // of the barriers that it came to
  const Bytes* bytes = nullptr;
  unsigned parity = 0;
  bool arrived_at_cluster = false, after_previous = false;
  std::vector<std::vector<Multiplying>> groups{1};  // committed ones, and at the end the one that is open
};

// Two rounds of exchanges: a lane may be in the next one while others read this one.
struct Warp {
  unsigned arrived = 0, round = 0;
  alignas(16) unsigned char values[2][kLanes * kMostBytes];
};

struct NamedBarrier {
  unsigned arrived = 0, generation = 0;
};

// Each block's memory in a region of its own, aligned to the region's size.
unsigned char* region_of(unsigned block) {
  static unsigned char* const all = static_cast<unsigned char*>(std::aligned_alloc(kRegion, kRegion * kMostBlocks));
  return all + block * kRegion;
}

// Blocks of a cluster, which run together; most clusters are one block.
class Cluster {
 public:
  void run(dim3 first, unsigned blocks, int threads, const std::function<void()>& kernel, bool backwards) {
    first_ = first, kernel_ = &kernel, per_block_ = unsigned(threads), backwards_ = backwards;
    const unsigned all = blocks * per_block_;
    threads_.assign(all, {}), warps_.assign(all / kLanes, {}), left_.assign(blocks, per_block_);
    named_.assign(size_t(blocks) * kNamedBarriers, {}), at_cluster_ = {}, begun_ = 1;
    for (unsigned done = 0; done < all;) {
      bool moved = false;
      for (unsigned i = 0; i < all; ++i) {
        const unsigned t = backwards ? all - 1 - i : i;
        if (!may_run(t)) continue;
        moved = true;
        if (!go_on(t)) continue;
        ++done, --left_[t / per_block_];
        if (!threads_[t].arrived_at_cluster) meet_cluster();
      }
      if (!moved && done < all) meet();
    }
    if (!late_.empty()) fail("a copy that nothing waited for");
    const auto waited = [](const Thread& thread) { return thread.after_previous; };
    if (!std::ranges::all_of(threads_, waited)) fail("a kernel that does not wait for the one before it");
  }

  void wait(Thread::State state) {
    Thread& mine = thread();
    mine.state = state;
    const Place place = here;
    if (_setjmp(mine.on->place) == 0) _longjmp(main_, 1);
    here = place;
  }
  Thread& thread() { return threads_[now_]; }
  Warp& warp() { return warps_[now_ / kLanes]; }
  unsigned own_block() const { return now_ / per_block_; }
  unsigned blocks() const { return unsigned(left_.size()); }
  NamedBarrier& named(unsigned id) { return named_[own_block() * kNamedBarriers + id]; }
  NamedBarrier& at_cluster() { return at_cluster_; }
  bool backwards() const { return backwards_; }
  // A block's memory is another's to write while it runs.
  bool runs(unsigned block) const { return block < blocks() && has_begun(block) && left_[block] > 0; }
  // One more that has arrived, or is at its end.
  void meet_cluster() {
    if (++at_cluster_.arrived < threads_.size()) return;
    at_cluster_.arrived = 0, ++at_cluster_.generation;
    for (Thread& t : threads_) {
      t.arrived_at_cluster = false;
      if (t.state == Thread::State::done) ++at_cluster_.arrived;
    }
  }
  // What the machine does by itself: at once, or as late as can be.
  void begin(std::function<void()> copy) {
    if (backwards_)
      late_.push_back(std::move(copy));
    else
      copy();
  }

 private:
  // One block after another, when those before can do nothing without it.
  bool has_begun(unsigned block) const { return (backwards_ ? blocks() - 1 - block : block) < begun_; }
  bool may_run(unsigned t) const {
    const Thread& thread = threads_[t];
    switch (thread.state) {
      case Thread::State::waiting_to_start:
        return has_begun(t / per_block_);
      case Thread::State::running:
        return true;
      case Thread::State::at_named:
        return named_[t / per_block_ * kNamedBarriers + thread.named].generation != thread.named_generation;
      case Thread::State::at_cluster:
        return at_cluster_.generation != thread.cluster_generation;
      case Thread::State::at_bytes:
        return thread.bytes->phase != thread.parity;
      default:
        return false;
    }
  }

  // Until it waits or ends; returns whether it ended. Threads that never wait follow each other on one coroutine.
  bool go_on(unsigned t) {
    ended_ = false, now_ = t;
    Thread& thread = threads_[t];
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
      const unsigned t = now_, block = t / per_block_;
      here.block = dim3(first_.x + block, first_.y, first_.z), here.thread = dim3(t % per_block_, 0, 0);
      here.shared = region_of(block) + kFirst;
      (*kernel_)();
      threads_[t].state = Thread::State::done, ended_ = true;
      if (threads_[t].groups.size() > 1 || !threads_[t].groups[0].empty()) fail("a product that nothing waited for");
      idle_.push_back(own);
    }
  }

  // Nobody can run: a whole warp in an exchange goes on, and those at a block's barrier where all that are left are
  // there; else what comes late comes, the last first; else the next block begins.
  void meet() {
    bool moved = false;
    for (size_t w = 0; w < warps_.size(); ++w)
      if (warps_[w].arrived == kLanes) {
        warps_[w].arrived = 0, ++warps_[w].round, moved = true;
        for (size_t t = w * kLanes; t < (w + 1) * kLanes; ++t) threads_[t].state = Thread::State::running;
      }
    if (moved) return;
    for (unsigned b = 0; b < left_.size(); ++b) {
      const auto begin = threads_.begin() + b * per_block_, end = begin + per_block_;
      const auto waits = [](const Thread& thread) { return thread.state == Thread::State::at_barrier; };
      if (left_[b] == 0 || std::count_if(begin, end, waits) < int(left_[b])) continue;
      moved = true;
      for (auto thread = begin; thread != end; ++thread)
        if (waits(*thread)) thread->state = Thread::State::running;
    }
    if (moved) return;
    if (late_.empty() && begun_ < blocks()) return void(++begun_);
    if (late_.empty()) fail("a barrier, or an exchange between lanes, that not all threads reach");
    const auto copy = std::move(late_.back());
    late_.pop_back();
    copy();
  }

  static inline Cluster* current_ = nullptr;
  const std::function<void()>* kernel_ = nullptr;
  dim3 first_;
  unsigned per_block_ = 0, begun_ = 0;
  bool backwards_ = false;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<unsigned> left_;  // threads of each block that have not ended
  std::vector<NamedBarrier> named_;
  NamedBarrier at_cluster_;
  std::vector<std::function<void()>> late_;
  std::vector<std::unique_ptr<Coroutine>> all_;
  std::vector<Coroutine*> idle_;
  Coroutine* made_ = nullptr;
  jmp_buf main_;
  unsigned now_ = 0;
  bool ended_ = false;
};

Cluster& cluster() {
  static Cluster& only = *new Cluster;
  return only;
}

}  // namespace

void after_previous() { cluster().thread().after_previous = true; }
void meet_block() { cluster().wait(Thread::State::at_barrier); }

const unsigned char* gather(const void* mine, size_t size) {
  if (size > kMostBytes) fail("an exchange of too many bytes");
  Warp& warp = cluster().warp();
  unsigned char* const values = warp.values[warp.round % 2];
  std::memcpy(values + here.thread.x % kLanes * size, mine, size);
  ++warp.arrived;
  cluster().wait(Thread::State::in_exchange);
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

namespace {

// The memory of a block of this cluster that an address is of.
unsigned char* memory_at(uint32_t address) {
  const unsigned block = address >> kBlockOfAddress, offset = address & ((1u << kBlockOfAddress) - 1);
  if (!cluster().runs(block) || offset >= kRegion) fail("an address of no memory of a block that runs");
  return region_of(block) + offset;
}
// Rows of 128 bytes whose pieces of 16 lie exchanged by their row's place in 8.
uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7u) << 4; }

void turn_if_complete(Bytes& bytes) {
  if (bytes.pending > 0 || bytes.missing != 0) return;
  bytes.pending = bytes.expected, bytes.phase ^= 1;
}
Bytes& valid(Bytes* bytes) {
  if (bytes->made != Bytes::kMade) fail("a barrier in memory that was never made");
  return *bytes;
}

constexpr unsigned kInner = 16;  // of a product

// A row of an operand: two pieces of 16 bytes.
void read_row(uint64_t described, unsigned row, float (&to)[kInner]) {
  const uint32_t begin = uint32_t(described & 0x3fff) << 4, atom = uint32_t(described >> 32 & 0x3fff) << 4;
  for (unsigned k = 0; k < kInner; k += kInner / 2) {
    const uint32_t at = swizzled(begin + row / 8 * atom + row % 8 * 128 + k * 2);
    uint32_t words[kInner / 4];
    std::memcpy(words, region_of(cluster().own_block()) + at, sizeof words);
    for (unsigned i = 0; i < kInner / 2; ++i) to[k + i] = half_of(words[i / 2], i % 2);
  }
}

void multiply(const Multiplying& m, unsigned thread) {
  const unsigned lane = thread % kLanes, warp = thread / kLanes % 4;
  float a[2][kInner], b[kInner];
  for (unsigned h = 0; h < 2; ++h) read_row(m.a, warp * 16 + lane / 4 + h * 8, a[h]);
  for (unsigned j = 0; j < unsigned(m.columns) / 8; ++j)
    for (unsigned i = 0; i < 2; ++i) {
      read_row(m.b, j * 8 + lane % 4 * 2 + i, b);
      for (unsigned h = 0; h < 2; ++h) {
        float& sum = m.sums[4 * j + 2 * h + i];
        if (!m.add) sum = 0;
        for (unsigned k = 0; k < kInner; ++k) sum += a[h][k] * b[k];
      }
    }
}

void multiply_all(std::vector<Multiplying>& group) {
  for (const Multiplying& m : group) multiply(m, here.thread.x);
  group.clear();
}

}  // namespace

uint32_t address_of(const void* p) {
  const auto offset = static_cast<const unsigned char*>(p) - region_of(cluster().own_block());
  if (offset < 0 || size_t(offset) >= kRegion) fail("an address that is not of the block's memory");
  return uint32_t(offset);
}
uint32_t address_in(uint32_t own, unsigned block) {
  if (block >= cluster().blocks()) fail("a block that the cluster has not");
  return own | block << kBlockOfAddress;
}
void store_at(uint32_t address, const float (&values)[4]) {
  if (address % sizeof values != 0) fail("16 bytes that are not aligned");
  std::memcpy(memory_at(address), values, sizeof values);
}

void arrive_cluster() {
  Thread& mine = cluster().thread();
  if (mine.arrived_at_cluster) fail("a second arrival at the cluster's barrier");
  mine.arrived_at_cluster = true, mine.cluster_generation = cluster().at_cluster().generation;
  cluster().meet_cluster();
}
void wait_cluster() {
  Thread& mine = cluster().thread();
  if (cluster().at_cluster().generation == mine.cluster_generation) cluster().wait(Thread::State::at_cluster);
}
void meet_named(unsigned id, unsigned threads) {
  NamedBarrier& barrier = cluster().named(id);
  Thread& mine = cluster().thread();
  mine.named = id, mine.named_generation = barrier.generation;
  if (++barrier.arrived < threads) return cluster().wait(Thread::State::at_named);
  barrier.arrived = 0, ++barrier.generation;
}

void make(Bytes* bytes, unsigned arrivals) { *bytes = {0, uint8_t(arrivals), uint8_t(arrivals), 0, Bytes::kMade}; }
void arrive(Bytes* bytes, uint32_t expected) {
  Bytes& b = valid(bytes);
  if (b.pending == 0) fail("more arrivals than a barrier was made for");
  b.missing += int32_t(expected), --b.pending;
  turn_if_complete(b);
}
void await(Bytes* bytes, unsigned parity) {
  Thread& mine = cluster().thread();
  mine.bytes = &valid(bytes), mine.parity = parity;
  if (bytes->phase == parity) cluster().wait(Thread::State::at_bytes);
}

void copy_tile(void* to, const Tiles& tiles, Bytes* bytes, int column, int row, uint64_t) {
  const uint32_t first = address_of(to);
  if (first % 1024 != 0) fail("a tile that does not begin at a multiple of 1024 bytes");
  unsigned char* const memory = region_of(cluster().own_block());
  cluster().begin([=] {
    for (int r = 0; r < tiles.tile_rows; ++r)
      for (int c = 0; c < Tiles::kColumns; ++c) {
        const int64_t at_row = row + int64_t{r}, at_column = column + int64_t{c};
        const bool inside = at_row < tiles.rows && at_column < tiles.columns;
        const uint16_t value = inside ? tiles.first[at_row * tiles.columns + at_column] : uint16_t{0};
        std::memcpy(memory + swizzled(first + uint32_t(r * Tiles::kColumns + c) * 2), &value, sizeof value);
      }
    Bytes& b = valid(bytes);
    b.missing -= tiles.tile_rows * Tiles::kColumns * 2;
    turn_if_complete(b);
  });
}

void multiply_tiles(float* sums, int columns, uint64_t a, uint64_t b, bool add) {
  cluster().thread().groups.back().push_back({sums, columns, a, b, add});
}
void commit_tiles() {
  auto& groups = cluster().thread().groups;
  if (!cluster().backwards()) multiply_all(groups.back());
  groups.emplace_back();
}
void await_tiles(unsigned running) {
  auto& groups = cluster().thread().groups;
  while (groups.size() - 1 > running) {
    multiply_all(groups.front());
    groups.erase(groups.begin());
  }
}

void run(dim3 blocks, int threads, size_t shared_bytes, unsigned cluster_size, const std::function<void()>& kernel) {
  if (threads <= 0 || threads % int(kLanes) != 0 || threads > 1024) fail("a block is whole warps, 32 at most");
  if (shared_bytes > kSharedBytes) fail("more shared memory than a block can have");
  if (cluster_size > kMostBlocks || blocks.x % cluster_size != 0) fail("a grid that is no whole clusters");
  const char* const order = std::getenv("DSENGINE_EMULATOR");
  const bool backwards = order && order == std::string_view("backwards");
  grid = blocks, block_size = dim3(unsigned(threads));
  const unsigned across = blocks.x / cluster_size;
  const uint64_t all = uint64_t(across) * blocks.y * blocks.z;
  for (uint64_t i = 0; i < all; ++i) {
    const uint64_t c = backwards ? all - 1 - i : i;
    here.block =
        dim3(unsigned(c % across) * cluster_size, unsigned(c / across % blocks.y), unsigned(c / across / blocks.y));
    for (unsigned b = 0; b < cluster_size; ++b) std::memset(region_of(b) + kFirst, 0xff, shared_bytes);  // no numbers
    cluster().run(here.block, cluster_size, threads, kernel, backwards);
  }
}

}  // namespace emulator
