// yᵀ = w xᵀ by the tensor cores, the weight as their 64 rows and the few rows of x as columns. A block takes tile_rows
// of w's rows and a part of the sum. One of its threads asks for tiles of w and x, 64 of the sum at a time, as many
// ahead as its shared memory holds; one or two groups of four warps multiply them as they come. The blocks of a cluster
// have the parts of a sum: each writes to the others' memory what they finish, and adds what it has got in the parts'
// order.
#include "thin.h"

#include "activations.h"
#include "hopper.h"

namespace gpu {
namespace {

constexpr int kGroup = 4 * kWarp, kGroupRows = 64;
constexpr int kProcessors = 132;       // of an H100 and an H200: a choice of tiles, which changes no bits
constexpr int kMostSplits = 8;         // a cluster's blocks
constexpr size_t kMemory = 220 << 10;  // a block's: the more tiles are on their way the better
constexpr size_t kTileAlignment = 1024;

// A block's shared memory: the ring of tiles, where the sums lie after it; what the others' blocks send; barriers.
struct Room {
  int stages, splits;
  size_t stage_bytes, sums_bytes;

  Room(int rows, int groups, int splits, int64_t in) : splits(splits) {
    stage_bytes = size_t(groups) * kGroupRows * kTileBytes + size_t(rows) * kTileBytes;
    sums_bytes = size_t(rows) * size_t(groups * kGroupRows + 4) * sizeof(float);
    const size_t sent = splits > 1 ? sums_bytes : 0;
    const auto room = int64_t((kMemory - kTileAlignment - sent) / (stage_bytes + 2 * sizeof(Bytes)));
    const int64_t steps = blocks_of(blocks_of(in, kTileColumns), splits);
    stages = int(room < steps ? room : steps);
  }
  __host__ __device__ size_t received() const {
    const size_t ring = size_t(stages) * stage_bytes;
    return ring > sums_bytes ? ring : sums_bytes;
  }
  __host__ __device__ size_t barriers() const { return received() + (splits > 1 ? sums_bytes : 0); }
  size_t bytes() const { return kTileAlignment + barriers() + 2 * size_t(stages) * sizeof(Bytes); }
};

struct Thin {
  ThinLinear to;
  Room room;
  int steps, out, tile_rows;
  bool gated;  // a tile is as many rows of the gate, and then the same ones of up

  __host__ __device__ int columns() const { return gated ? tile_rows / 2 : tile_rows; }  // of y that a tile makes
};

#ifdef DSE_HOPPER
struct Two {
  float at[2];
};
template <class T>
__device__ inline Two two_of(const T* p) {
  return {number(p[0]), number(p[1])};
}

// Columns i and i + 1 of a row, i even, from their sums, and those of up.
struct Finish {
  ThinLinear to;
  int out;
  bool gated;
  Two bias, up_bias;

  __device__ void write(int64_t row, int i, const Two& sums, const Two& up, const Two& residual) const {
    float v[2];
    for (int j = 0; j < 2; ++j) {
      v[j] = sums.at[j] + bias.at[j];
      if (to.activates) v[j] = activated(to.activation, v[j]);
      if (gated) v[j] *= up.at[j] + up_bias.at[j];
      v[j] += residual.at[j];
    }
    const int64_t at = row * out + i;
    if (to.wide) {
      struct alignas(8) Pair {
        float x, y;
      };
      *reinterpret_cast<Pair*>(static_cast<float*>(to.y) + at) = {v[0], v[1]};
    } else {
      *reinterpret_cast<uint32_t*>(static_cast<bf16*>(to.y) + at) = pair_of(v[0], v[1]);
    }
  }
};
#endif

// kRows: of x, rounded up; what is beyond its end is 0 and stays unwritten. Blocks (splits, tiles of w).
template <int kRows, int kGroups>
__global__ void __launch_bounds__(kGroups* kGroup + kWarp)
    multiply_thin(const __grid_constant__ Tiles weights, const __grid_constant__ Tiles inputs, Thin p) {
#ifdef DSE_HOPPER
  constexpr int kTile = kGroups * kGroupRows, kThreads = kGroups * kGroup;
  constexpr int kLine = kTile + 4;  // of sums, a row of x after another
  constexpr uint32_t kWeightBytes = kTile * kTileBytes, kStageBytes = kWeightBytes + kRows * kTileBytes;
  unsigned char* memory = shared_memory<unsigned char>();
  memory += -reinterpret_cast<uintptr_t>(memory) & (kTileAlignment - 1);
  auto* const sums = reinterpret_cast<float*>(memory);  // [kRows, kLine]: when the ring has served
  auto* const received = reinterpret_cast<float*>(memory + p.room.received());  // [splits, kRows / splits, kLine]
  auto* const full = reinterpret_cast<Bytes*>(memory + p.room.barriers());
  Bytes* const empty = full + p.room.stages;
  const int thread = int(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp, stages = p.room.stages;
  const int splits = p.room.splits, split = int(blockIdx.x), first = int(blockIdx.y) * p.columns();
  const int begin = p.steps * split / splits, steps = p.steps * (split + 1) / splits - begin;

  if (thread == 0) {
    for (int s = 0; s < stages; ++s) make(full + s, 1), make(empty + s, kThreads / kWarp);
    show_barriers();
  }
  __syncthreads();

  if (warp == kThreads / kWarp) {        // the warp that asks for tiles
    if (lane > 0) return leave_early();  // waiting they would keep the first lane from asking
    if (splits > 1) arrive_cluster();
    fetch(weights), fetch(inputs);
    const auto stage_of = [&](int s) { return memory + uint32_t(s) * kStageBytes; };
    const auto begin_stage = [&](int i, int s) {
      arrive(full + s, uint32_t(p.tile_rows) * kTileBytes + kRows * kTileBytes);
      const int of_sum = (begin + i) * kTileColumns;
      copy_tile(stage_of(s), weights, full + s, of_sum, first, kReadOnce);
      if (p.gated) {
        unsigned char* const up = stage_of(s) + uint32_t(p.columns()) * kTileBytes;
        copy_tile(up, weights, full + s, of_sum, p.out + first, kReadOnce);
      }
    };
    const auto end_stage = [&](int i, int s) {
      copy_tile(stage_of(s) + kWeightBytes, inputs, full + s, (begin + i) * kTileColumns, 0, kReadOften);
    };
    const int early = stages < steps ? stages : steps;
    for (int i = 0; i < early; ++i) begin_stage(i, i);  // the weights are there before x is
    after_previous();
    for (int i = 0; i < early; ++i) end_stage(i, i);
    for (int i = early, s = 0, turn = 0; i < steps; ++i) {
      await(empty + s, uint32_t(turn));
      begin_stage(i, s), end_stage(i, s);
      if (++s == stages) s = 0, turn ^= 1;
    }
    if (splits > 1) wait_cluster();
    return;
  }

  if (splits > 1) arrive_cluster();
  constexpr int kPairs = kTile / 2;  // of columns of y; a thread finishes one pair of some rows
  const int pair = thread % kPairs * 2, column = first + pair;
  const bool writes = pair < p.columns() && column < p.out;
  const Two none{};
  const auto bias_at = [&](int i) { return p.to.bias && writes ? two_of(p.to.bias + i) : none; };
  const Finish finish{p.to, p.out, p.gated, bias_at(column), p.gated ? bias_at(p.out + column) : none};
  after_previous();
  // Of the rows that this block finishes, where there are few.
  const int share = kRows / splits;
  constexpr int kRowsAtOnce = kThreads / kPairs, kMostEarly = kRows / 2 / kRowsAtOnce;
  const bool adds = p.to.residual && writes;
  Two residual[kMostEarly]{};
  if (adds && splits > 1) {
    DSE_UNROLL
    for (int q = 0; q < kMostEarly; ++q) {
      const int n = thread / kPairs + q * kRowsAtOnce, row = split * share + n;
      if (n < share && row < p.to.rows) residual[q] = two_of(p.to.residual + int64_t(row) * p.out + column);
    }
  }

  float own[kRows / 2];
  const uint32_t ring = address_of(memory) + uint32_t(warp / 4) * kGroupRows * kTileBytes;
  const uint32_t ring_x = address_of(memory) + kWeightBytes;
  for (int i = 0, s = 0, turn = 0, before = 0; i < steps; ++i) {
    await(full + s, uint32_t(turn));
    const uint64_t a = operand(ring + uint32_t(s) * kStageBytes), b = operand(ring_x + uint32_t(s) * kStageBytes);
    begin_products();
    DSE_UNROLL
    for (int k = 0; k < 4; ++k) multiply(own, a + uint64_t(2 * k), b + uint64_t(2 * k), i > 0 || k > 0);
    end_products();
    if (i > 0) {  // the stage before has been read
      await_products<1>();
      if (lane == 0) arrive(empty + before);
    }
    before = s;
    if (++s == stages) s = 0, turn ^= 1;
  }
  await_products<0>();
  take_sums(own);

  meet_named(1, kThreads);  // nobody reads the ring any more
  const int row_of_w = warp / 4 * kGroupRows + warp % 4 * 16 + lane / 4, row_of_x = lane % 4 * 2;
  DSE_UNROLL
  for (int j = 0; j < kRows / 8; ++j) {
    DSE_UNROLL
    for (int i = 0; i < 4; ++i) sums[(j * 8 + row_of_x + i % 2) * kLine + row_of_w + i / 2 * 8] = own[4 * j + i];
  }
  meet_named(1, kThreads);

  if (splits == 1) {
    if (!writes) return;
    for (int n = thread / kPairs; n < p.to.rows; n += kRowsAtOnce) {
      const float* const line = sums + n * kLine + pair;
      finish.write(n, column, two_of(line), p.gated ? two_of(line + p.columns()) : none,
                   adds ? two_of(p.to.residual + int64_t(n) * p.out + column) : none);
    }
    return;
  }
  // Of x's rows each block finishes its share.
  wait_cluster();  // all blocks run: their memory may be written
  const uint32_t mine = address_of(received + split * share * kLine);
  for (int i = thread; i < int(p.to.rows) * (kTile / 4); i += kThreads) {
    const int n = i / (kTile / 4), of_w = i % (kTile / 4) * 4;
    if (of_w >= p.tile_rows) continue;
    const uint32_t place = mine + uint32_t(n % share * kLine + of_w) * uint32_t(sizeof(float));
    const Pack<float> four = *reinterpret_cast<const Pack<float>*>(sums + n * kLine + of_w);
    store_at(address_in(place, uint32_t(n / share)), four.at);
  }
  arrive_cluster();
  wait_cluster();
  if (!writes) return;
  DSE_UNROLL
  for (int q = 0; q < kMostEarly; ++q) {
    const int n = thread / kPairs + q * kRowsAtOnce;
    if (n >= share || split * share + n >= p.to.rows) break;
    Two made{}, up{};
    for (int s = 0; s < splits; ++s) {
      const float* const line = received + (s * share + n) * kLine + pair;
      for (int j = 0; j < 2; ++j) made.at[j] += line[j];
      for (int j = 0; j < 2 && p.gated; ++j) up.at[j] += line[p.columns() + j];
    }
    finish.write(split * share + n, column, made, up, residual[q]);
  }
#elif defined(__CUDA_ARCH__)
  __trap();  // ThinProduct is for cards of 9.0, and their own code
#endif
}

template <int kRows, int kGroups>
void run_thin(const Thin& p, int64_t in) {
  const int64_t rows_of_w = p.gated ? 2 * int64_t{p.out} : p.out;
  const Tiles weights = tiles_of(p.to.w, rows_of_w, in, p.columns()), inputs = tiles_of(p.to.x, p.to.rows, in, kRows);
  Launch as{dim3(unsigned(p.room.splits), unsigned(blocks_of(p.out, p.columns()))), kGroups * kGroup + kWarp};
  as.shared = p.room.bytes(), as.stream = p.to.stream, as.cluster = unsigned(p.room.splits);
  launch(as, multiply_thin<kRows, kGroups>, weights, inputs, p);
}

}  // namespace

ThinProduct::ThinProduct(int64_t in, int64_t out, bool gated)
    : in_(in), out_(out), gated_(gated), splits_(1), groups_(1) {
  const int64_t all = gated ? 2 * out : out, tiles = blocks_of(all, kGroupRows), steps = blocks_of(in, kTileColumns);
  while (splits_ < kMostSplits && tiles * splits_ * 2 <= kProcessors && splits_ * 2 <= steps) splits_ *= 2;
  // The height with which the last round of blocks is the fullest.
  int64_t least = 0;
  for (const int rows : {64, 56, 48}) {
    if (gated && rows % 16 != 0) continue;  // each half begins at a multiple of 1024 bytes
    const int64_t rounds = blocks_of(blocks_of(all, rows) * splits_, kProcessors) * rows;
    if (least == 0 || rounds < least) least = rounds, tile_rows_ = rows;
  }
  constexpr int64_t kHead = 32768;
  if (out >= kHead && !gated) groups_ = 2, tile_rows_ = 2 * kGroupRows;
}

bool ThinProduct::takes(const ThinLinear& linear) const {
  return linear.rows <= kMostRows && whole_packs<bf16>(in_, linear.x, linear.w) &&
         whole_packs<bf16>(out_, linear.bias, linear.residual, linear.y);
}

void ThinProduct::run(const ThinLinear& linear) const {
  const auto by_rows = [&](auto rows) {
    constexpr int kRows = decltype(rows)::value;
    const Thin p{linear, Room(kRows, groups_, splits_, in_), int(blocks_of(in_, kTileColumns)), int(out_), tile_rows_,
                 gated_};
    if (groups_ == 2)
      run_thin<kRows, 2>(p, in_);
    else
      run_thin<kRows, 1>(p, in_);
  };
  if (linear.rows <= 8)
    by_rows(std::integral_constant<int, 8>());
  else if (linear.rows <= 16)
    by_rows(std::integral_constant<int, 16>());
  else if (linear.rows <= 32)
    by_rows(std::integral_constant<int, 32>());
  else
    by_rows(std::integral_constant<int, 64>());
}

}  // namespace gpu
