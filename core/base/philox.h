// Counted random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
// A draw is a pure function of its key and counter, so it does not depend on batch, slot, rank or restart.
//
//   Philox draws(seed, Purpose::sample, step, row);
//   double u = draws.uniform(position);     // in [0, 1), the same whenever asked
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace dsengine {

enum class Purpose : uint32_t {
  init = 1,
  shuffle = 2,
  sample = 3,
  blend = 4,
  evaluate = 5,
  split = 6,
  round = 7,
  update = 8
};

inline std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0], b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {uint32_t(b >> 32) ^ counter[1] ^ key[0], uint32_t(b), uint32_t(a >> 32) ^ counter[3] ^ key[1],
               uint32_t(a)};
    key[0] += 0x9E3779B9, key[1] += 0xBB67AE85;
  }
  return counter;
}

// A stream of draws indexed by a 64-bit position. `purpose`, `step` and `row` are mixed into the key.
class Philox {
 public:
  Philox(uint64_t seed, Purpose purpose, uint64_t step = 0, uint64_t row = 0) {
    const auto lo = [](uint64_t x) { return uint32_t(x); };
    const auto hi = [](uint64_t x) { return uint32_t(x >> 32); };
    const auto a = philox({lo(step), hi(step), lo(row), hi(row)}, {lo(seed), hi(seed)});
    key_ = {a[0], a[1]};
    high_ = {a[2], uint32_t(purpose)};
  }
  std::array<uint32_t, 4> block(uint64_t position) const {
    return philox({uint32_t(position), uint32_t(position >> 32), high_[0], high_[1]}, key_);
  }
  // What block is a function of, beside the position: philox({position, high}, key).
  std::array<uint32_t, 2> key() const { return key_; }
  std::array<uint32_t, 2> high() const { return high_; }
  // [0, 1) with 53 bits.
  double uniform(uint64_t position) const {
    const auto b = block(position);
    return double((uint64_t{b[0]} << 21) ^ (b[1] >> 11)) * 0x1p-53;
  }
  // Standard normal (Box-Muller).
  double normal(uint64_t position) const {
    const auto b = block(position);
    const double u = (double(b[0]) + 1) * 0x1p-32, v = double(b[1]) * 0x1p-32;
    return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
  }

 private:
  std::array<uint32_t, 2> key_, high_;
};

// FNV-1a: a stable number for a name, such as a tensor's.
inline uint64_t name_hash(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const unsigned char c : name) hash = (hash ^ c) * 0x100000001b3;
  return hash;
}

}  // namespace dsengine
