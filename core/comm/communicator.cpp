#include "comm/communicator.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <exception>

namespace dsengine {

RankLost::RankLost(int64_t rank, const std::string& why)
    : std::runtime_error(fmt::format("rank {}: {}", rank, why)), rank_(rank) {}

std::string Communicator::broadcast_bytes(std::string bytes, int64_t from) {
  check_rank(from);
  if (rank() != from) bytes.clear();
  return std::move(gather_bytes(std::move(bytes))[size_t(from)]);
}

bool Communicator::agree(bool asked) {
  double any[1] = {asked ? 1.0 : 0.0};
  max(any);
  return any[0] > 0;
}

void Communicator::together(const std::function<void()>& body) {
  std::exception_ptr error;
  std::string text;  // "": done; else a mark, so that an error without words is one too
  try {
    body();
  } catch (const RankLost&) {
    throw;  // nobody is there to be told
  } catch (const std::exception& e) {
    error = std::current_exception(), text = std::string("!") + e.what();
  } catch (...) {
    error = std::current_exception(), text = "!something that is no std::exception";
  }
  std::vector<std::string> texts;
  try {
    texts = gather_bytes(std::move(text));
  } catch (...) {  // another is still in a collective of its body
    if (!error) throw;
  }
  if (error) std::rethrow_exception(error);
  for (size_t r = 0; r < texts.size(); ++r)
    if (!texts[r].empty()) throw RankLost(int64_t(r), texts[r].substr(1));
}

void Communicator::zero_first(const std::function<void()>& body) {
  together([&] {
    if (rank() == 0) body();
  });
  if (size() == 1) return;
  together([&] {
    if (rank() != 0) body();
  });
}

void Communicator::check_parts(const at::Tensor& whole, const at::Tensor& part) const {
  DSE_CHECK(whole.is_contiguous() && part.is_contiguous() && whole.scalar_type() == part.scalar_type() &&
                whole.numel() == part.numel() * size(),
            "{} elements of a whole, {} of a part, {} ranks", whole.numel(), part.numel(), size());
}

void Communicator::check_cuts(const at::Tensor& flat, std::span<const int64_t> cuts) const {
  DSE_CHECK(flat.dim() == 1 && flat.is_contiguous() && int64_t(cuts.size()) == size() + 1 && cuts.front() == 0 &&
                cuts.back() == flat.numel() && std::ranges::is_sorted(cuts),
            "{} elements, {} cuts, {} ranks", flat.numel(), cuts.size(), size());
}

at::Tensor Communicator::part_of(const at::Tensor& flat, std::span<const int64_t> cuts, int64_t rank) {
  const int64_t begin = cuts[size_t(rank)];
  return flat.narrow(0, begin, cuts[size_t(rank) + 1] - begin);
}

void Communicator::reduce_parts(const at::Tensor& flat, std::span<const int64_t> cuts) {
  check_cuts(flat, cuts);
  const at::NoGradGuard no_grad;
  const at::Tensor own = part_of(flat, cuts, rank());
  std::vector<at::Tensor> to, from;
  for (int64_t r = 0; r < size(); ++r) {
    to.push_back(part_of(flat, cuts, r));
    from.push_back(at::empty_like(own));
  }
  all_to_all(to, from);
  for (size_t r = 1; r < from.size(); ++r) from[0].add_(from[r]);
  own.copy_(from[0]);
}

void Communicator::gather_parts(const at::Tensor& flat, std::span<const int64_t> cuts) {
  check_cuts(flat, cuts);
  std::vector<at::Tensor> from;
  for (int64_t r = 0; r < size(); ++r) from.push_back(part_of(flat, cuts, r));
  const std::vector<at::Tensor> to(from.size(), from[size_t(rank())]);
  all_to_all(to, from);
}

void Communicator::check_rank(int64_t rank) const {
  DSE_CHECK(rank >= 0 && rank < size(), "rank {} of {}", rank, size());
}

}  // namespace dsengine
