// The inputs of `dsengine bench`: token ids and lengths that depend on the numbers asked for alone, so that another
// program can make the same ones.
//
//   Lcg draws(1234);                                        // s = 6364136223846793005 s + 1442695040888963407 mod 2^64
//   const auto prompts = token_rows({128, 128}, vocabulary);   // (s >> 33) % n, row after row
//   const auto lengths = drawn_lengths(Lengths::exponential, 32, 256);
#pragma once
#include <cstdint>
#include <vector>

#include "base/choice.h"

namespace dsengine {

class Lcg {
 public:
  explicit Lcg(uint64_t seed) : state_(seed) {}
  uint64_t below(uint64_t n) { return (next() >> 33) % n; }
  double uniform() { return double(next() >> 33) / double(uint64_t{1} << 31); }  // in [0, 1)

 private:
  uint64_t next() { return state_ = state_ * 6364136223846793005u + 1442695040888963407u; }
  uint64_t state_;
};

// Rows of ids from 1000 to the vocabulary's end or 30000, whichever is less: clear of most families' special tokens. Of
// a vocabulary that ends before, any of it.
std::vector<std::vector<int32_t>> token_rows(const std::vector<int64_t>& lengths, int64_t vocabulary);

// How long sequences are: all `most`; or drawn evenly from most / 4 to most, as records are; or drawn from an
// exponential distribution of mean most / 4 that is cut at most, as answers are.
enum class Lengths { uniform, ragged, exponential };
template <>
inline constexpr auto kChoices<Lengths> = std::to_array<const char*>({"uniform", "ragged", "exponential"});
std::vector<int64_t> drawn_lengths(Lengths lengths, int64_t count, int64_t most);

}  // namespace dsengine
