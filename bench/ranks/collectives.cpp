// How fast ranks sum and gather, beside how fast this machine copies memory: a JSON line of each size, from rank 0.
//
//   mpirun -n 2 --bind-to none build/release/bin/bench_collectives
//
// bytes: of the tensor. *_gb_per_s: what goes over the wire at least, 2 (n - 1) / n of it for all_reduce and half of
// that for gather_parts, over the time of the median of nine (1e9 bytes a second). copy_gb_per_s: bytes that memcpy
// writes, on all ranks at once.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iostream>

#include "comm/world.h"

using namespace dsengine;

namespace {

template <class F>
double median_seconds(Communicator& ranks, const F& f) {
  std::vector<double> seconds;
  for (int turn = 0; turn < 10; ++turn) {
    ranks.barrier();
    const auto begin = std::chrono::steady_clock::now();
    f();
    double took[] = {std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count()};
    ranks.max(took);
    if (turn > 0) seconds.push_back(took[0]);  // the first warms up
  }
  std::ranges::sort(seconds);
  return seconds[seconds.size() / 2];
}

}  // namespace

int main() try {
  at::set_num_threads(1);
  const auto ranks = open_world();
  const auto n = double(ranks->size());
  for (const int64_t numel : {int64_t{1} << 10, int64_t{1} << 16, int64_t{1} << 20, int64_t{1} << 24}) {
    const at::Tensor x = at::ones({numel}, at::kFloat), y = at::empty({numel}, at::kFloat);
    std::vector<int64_t> cuts;
    for (int64_t r = 0; r <= ranks->size(); ++r) cuts.push_back(numel / ranks->size() * r);
    cuts.back() = numel;
    const double bytes = double(x.nbytes()), wire = bytes * (n - 1) / n;
    const double sum = median_seconds(*ranks, [&] { ranks->all_reduce(x); });
    const double gather = median_seconds(*ranks, [&] { ranks->gather_parts(x, cuts); });
    const double copy = median_seconds(*ranks, [&] { at::Tensor(y).copy_(x); });
    if (ranks->rank() == 0)
      std::cout << fmt::format(
          R"({{"ranks": {}, "bytes": {:.0f}, "all_reduce_us": {:.1f}, "all_reduce_gb_per_s": {:.3f}, "gather_us": {:.1f}, )"
          R"("gather_gb_per_s": {:.3f}, "copy_gb_per_s": {:.2f}}})"
          "\n",
          n, bytes, sum * 1e6, 2 * wire / sum / 1e9, gather * 1e6, wire / gather / 1e9, n * bytes / copy / 1e9);
  }
} catch (const std::exception& e) {
  std::cerr << e.what() << "\n";
  return 1;
}
