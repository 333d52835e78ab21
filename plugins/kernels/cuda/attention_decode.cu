// Attention of queries that are a sequence's only ones over its keys in a cache, bfloat16, heads of 64 and 128. A block
// has a query and up to 8 of its heads that share keys; each of its warps takes every fourth run of 32 keys, and their
// sums are merged in order (Flash-Decoding; Dao et al. 2023).
//
// Keys and values go from the cache to registers, 16 bytes a lane, and are the tensor cores' operands as they come:
//   scores [key, head] = keys [16, D] queriesᵀ [D, 8]: both in one order of D, a lane's eight elements after another's;
//   sums [d, head] = valuesᵀ [16 of D, 16 keys] weightsᵀ [16 keys, 8]: values' pairs of keys are made by permuting
//   bytes.
#include "attention.h"

namespace gpu {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp, kKeys = 32, kHeads = 8;
constexpr float kLog2E = 1.44269504088896341f;

struct alignas(16) Words {
  uint32_t at[4];
};

template <int D>
struct Room {  // of the block's shared memory
  alignas(16) bf16 queries[kHeads][D];
  float cosines[D / 2], sines[D / 2];
  float peaks[kWarps][kHeads], totals[kWarps][kHeads], sums[kWarps][kHeads][D];
};

// Element d of a head that turns.
__device__ inline bf16 turned_element(const bf16* head, int d, int pairs, const float* cosines, const float* sines) {
  if (d >= 2 * pairs) return head[d];
  const int pair = d % pairs;
  const TurnedPair both = turned(number(head[pair]), number(head[pair + pairs]), cosines[pair], sines[pair]);
  return element<bf16>(d < pairs ? both.first : both.second);
}

template <int D>
__global__ void __launch_bounds__(kThreads) attend_row(Attending<bf16> a, NewTokens fresh) {
  after_previous();
  constexpr int kTiles = kKeys / 16, kK = D / 32, kV = D / 64;
  Room<D>& room = *shared_memory<Room<D>>();
  const int thread = int(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp, g = lane / 4, t = lane % 4;
  const int64_t row = blockIdx.x, kv = blockIdx.y, first_head = kv * a.group + blockIdx.z * int64_t(kHeads);
  const int64_t rest = (kv + 1) * a.group - first_head;
  const int heads = int(rest < kHeads ? rest : kHeads);
  const int64_t sequence = a.sequences.of_row(row), last = a.sequences.place(sequence, row);
  const int64_t first = a.scores.first_key(last);
  const int64_t runs = (last - first + kKeys) / kKeys;

  if (fresh.qkv) {
    const auto pairs = int(fresh.turning.pairs);
    fresh.turning.angles(fresh.positions[row], fresh.lengths[row], room.cosines, room.sines);
    __syncthreads();
    const bf16* const q = fresh.qkv + row * (a.heads + 2 * fresh.kv_heads) * D;
    for (int i = thread; i < kHeads * D; i += kThreads)
      room.queries[i / D][i % D] =
          i / D < heads ? turned_element(q + (first_head + i / D) * D, i % D, pairs, room.cosines, room.sines)
                        : bf16{0};
    // Other blocks of these keys' heads write the same.
    const bf16* const k = q + (a.heads + kv) * D;
    const int64_t place = (fresh.rows[row] * fresh.kv_heads + kv) * D;
    for (int d = thread; d < D; d += kThreads) {
      fresh.keys[place + d] = turned_element(k, d, pairs, room.cosines, room.sines);
      fresh.values[place + d] = k[fresh.kv_heads * D + d];
    }
  } else {
    for (int i = thread; i < kHeads * D; i += kThreads)
      room.queries[i / D][i % D] = i / D < heads ? a.q.row(row, first_head + i / D)[i % D] : bf16{0};
  }
  __syncthreads();
  Words query[kK];
  for (int j = 0; j < kK; ++j) query[j] = *reinterpret_cast<const Words*>(&room.queries[g][j * 32 + t * 8]);

  // Past the end the last key is read again, and weighs nothing.
  const auto row_of = [&](int64_t key) { return a.sequences.key_row(sequence, key < last ? key : last); };
  Words keys[kTiles][2][kK], values[kTiles][4][kV];
  const auto load_run = [&](int64_t run) {
    const int64_t begin = first + run * kKeys;
    for (int s = 0; s < kTiles; ++s) {
      for (int h = 0; h < 2; ++h) {
        const bf16* const key = a.k.row(row_of(begin + s * 16 + h * 8 + g), kv) + t * 8;
        for (int j = 0; j < kK; ++j) keys[s][h][j] = *reinterpret_cast<const Words*>(key + j * 32);
      }
      for (int p = 0; p < 4; ++p) {
        const bf16* const value = a.v.row(row_of(begin + s * 16 + p / 2 * 8 + t * 2 + p % 2), kv) + g * 8;
        for (int j = 0; j < kV; ++j) values[s][p][j] = *reinterpret_cast<const Words*>(value + j * 64);
      }
    }
  };

  // Of heads 2 t and 2 t + 1.
  float sums[kV * 4][4] = {}, peak[2] = {-INFINITY, -INFINITY}, total[2] = {};
  for (int64_t run = warp; run < runs; run += kWarps) {
    load_run(run);
    float scores[kTiles][4] = {}, higher[2] = {peak[0], peak[1]}, slope;
    for (int s = 0; s < kTiles; ++s) {
      for (int j = 0; j < kK; ++j)
        for (int w = 0; w < 4; w += 2)
          multiply_add(scores[s], keys[s][0][j].at[w], keys[s][1][j].at[w], keys[s][0][j].at[w + 1],
                       keys[s][1][j].at[w + 1], query[j].at[w], query[j].at[w + 1]);
      for (int i = 0; i < 4; ++i) {
        const bool seen = first + run * kKeys + s * 16 + i / 2 * 8 + g <= last;
        scores[s][i] = seen ? a.scores.of(scores[s][i], &slope) * kLog2E : -INFINITY;
        higher[i % 2] = fmaxf(higher[i % 2], scores[s][i]);
      }
    }
    for (int h = 0; h < 2; ++h) {
      for (int by = 4; by < kWarp; by *= 2) higher[h] = fmaxf(higher[h], __shfl_xor_sync(kAllLanes, higher[h], by));
      const float before = exp2f(peak[h] - higher[h]);
      peak[h] = higher[h], total[h] *= before;
      for (auto& sum : sums) sum[h] *= before, sum[2 + h] *= before;
    }
    for (int s = 0; s < kTiles; ++s) {
      float p[4];
      for (int i = 0; i < 4; ++i) p[i] = exp2f(scores[s][i] - peak[i % 2]), total[i % 2] += p[i];
      const uint32_t early = transposed(pair_of(p[0], p[1])), late = transposed(pair_of(p[2], p[3]));
      for (int j = 0; j < kV; ++j)
        for (int w = 0; w < 4; ++w) {
          const uint32_t v0 = values[s][0][j].at[w], v1 = values[s][1][j].at[w], v2 = values[s][2][j].at[w],
                         v3 = values[s][3][j].at[w];
          multiply_add(sums[j * 4 + w], __byte_perm(v0, v1, 0x5410), __byte_perm(v0, v1, 0x7632),
                       __byte_perm(v2, v3, 0x5410), __byte_perm(v2, v3, 0x7632), early, late);
        }
    }
  }
  for (int h = 0; h < 2; ++h) {
    for (int by = 4; by < kWarp; by *= 2) total[h] += __shfl_xor_sync(kAllLanes, total[h], by);
    if (g == 0) room.peaks[warp][2 * t + h] = peak[h], room.totals[warp][2 * t + h] = total[h];
    for (int i = 0; i < kV * 4; ++i) {
      float* const to = &room.sums[warp][2 * t + h][i / 4 * 64 + g * 8 + i % 4 * 2];
      to[0] = sums[i][h], to[1] = sums[i][2 + h];
    }
  }
  __syncthreads();
  for (int i = thread; i < heads * D; i += kThreads) {
    const int head = i / D;
    float most = -INFINITY, all = 0, sum = 0;
    for (int w = 0; w < kWarps; ++w) most = fmaxf(most, room.peaks[w][head]);
    for (int w = 0; w < kWarps; ++w) {
      const float part = room.totals[w][head] > 0 ? exp2f(room.peaks[w][head] - most) : 0;
      all = fmaf(room.totals[w][head], part, all), sum = fmaf(room.sums[w][head][i % D], part, sum);
    }
    a.to[(row * a.heads + first_head + head) * D + i % D] = element<bf16>(sum / all);
  }
}

}  // namespace

bool attends_rows(const Attending<bf16>& a) {
  const bool aligned = a.k.of_token % Pack<bf16>::kSize == 0 && a.k.of_head % Pack<bf16>::kSize == 0 &&
                       a.v.of_token % Pack<bf16>::kSize == 0 && a.v.of_head % Pack<bf16>::kSize == 0;
  return (a.width == 64 || a.width == 128) && aligned && whole_packs<bf16>(a.width, a.k.first, a.v.first);
}

namespace {

void launch_rows(const Attending<bf16>& a, const NewTokens& fresh, void* stream) {
  const dim3 grid(unsigned(a.rows), unsigned(a.heads / a.group), unsigned(blocks_of(a.group, kHeads)));
  if (a.width == 64)
    launch(attend_row<64>, grid, kThreads, sizeof(Room<64>), stream, a, fresh);
  else
    launch(attend_row<128>, grid, kThreads, sizeof(Room<128>), stream, a, fresh);
}

}  // namespace

void attend_rows(const Attending<bf16>& a, void* stream) { launch_rows(a, NewTokens{}, stream); }

void attend_new_tokens(const Attending<bf16>& a, const NewTokens& tokens, void* stream) {
  if (!attends_rows(a)) throw dse::Failure("a cache that does not begin at a multiple of 16 bytes");
  launch_rows(a, tokens, stream);
}

}  // namespace gpu
