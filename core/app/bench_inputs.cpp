#include "app/bench_inputs.h"

#include <algorithm>
#include <cmath>

namespace dsengine {

std::vector<std::vector<int32_t>> token_rows(const std::vector<int64_t>& lengths, int64_t vocabulary) {
  const int64_t low = vocabulary > 1000 ? 1000 : 0, high = std::min<int64_t>(30000, vocabulary);
  Lcg draws(1234);
  std::vector<std::vector<int32_t>> rows;
  for (const int64_t length : lengths) {
    rows.emplace_back();
    for (int64_t i = 0; i < length; ++i)
      rows.back().push_back(int32_t(low + int64_t(draws.below(uint64_t(high - low)))));
  }
  return rows;
}

std::vector<int64_t> drawn_lengths(Lengths lengths, int64_t count, int64_t most) {
  Lcg draws(4321);
  std::vector<int64_t> result(size_t(count), most);
  const int64_t quarter = std::max<int64_t>(1, most / 4);
  for (auto& length : result) {
    if (lengths == Lengths::ragged) length = quarter + int64_t(draws.below(uint64_t(most - quarter + 1)));
    if (lengths == Lengths::exponential)
      length = std::clamp<int64_t>(std::llround(-std::log1p(-draws.uniform()) * double(most) / 4), 1, most);
  }
  return result;
}

}  // namespace dsengine
