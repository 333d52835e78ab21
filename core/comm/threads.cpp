#include "comm/threads.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <string_view>
#include <thread>

#include "base/check.h"

namespace dsengine {
namespace {

// What a rank brings to a collective; it lives on that rank's stack until all have left.
struct Offer {
  std::string_view what;
  int64_t from = 0;
  std::vector<at::Tensor> tensors{};
  std::span<double> numbers{};
  std::string bytes{};
};
using Offers = std::vector<const Offer*>;

// By rank 0's; of every rank the same verdict.
void check_alike(const Offers& offers) try {
  const Offer& first = *offers[0];
  for (size_t r = 1; r < offers.size(); ++r) {
    const Offer& other = *offers[r];
    DSE_CHECK(other.what == first.what, "rank 0 is in {}, rank {} in {}", first.what, r, other.what);
    DSE_CHECK(other.from == first.from, "{} from rank {} on rank 0, from {} on rank {}", first.what, first.from,
              other.from, r);
    DSE_CHECK(other.numbers.size() == first.numbers.size(), "{} of {} numbers on rank 0, of {} on rank {}", first.what,
              first.numbers.size(), other.numbers.size(), r);
    DSE_CHECK(other.tensors.size() == first.tensors.size(), "{} tensors", first.what);
    if (first.what == "all_to_all") continue;  // whose sizes are compared where they come to
    for (size_t t = 0; t < first.tensors.size(); ++t)
      DSE_CHECK(other.tensors[t].scalar_type() == first.tensors[t].scalar_type() &&
                    other.tensors[t].sizes() == first.tensors[t].sizes(),
                "{} of another shape or type on rank {} than on rank 0", first.what, r);
  }
} catch (const InternalError& error) {
  throw UnequalCalls(error.what());
}

at::Tensor summed(const Offers& offers) {
  at::Tensor sum = offers[0]->tensors[0].clone();
  for (size_t r = 1; r < offers.size(); ++r) sum.add_(offers[r]->tensors[0]);
  return sum;
}

}  // namespace

class ThreadGroup::State {
 public:
  explicit State(int64_t size) : offers_(size_t(size)) {}
  int64_t size() const { return int64_t(offers_.size()); }

  // All offers, while every rank is inside: each reads what it needs into memory of its own, and writes afterwards.
  template <class Read>
  void exchange(int64_t rank, const Offer& mine, const Read& read) {
    {
      std::unique_lock lock(mutex_);
      offers_[size_t(rank)] = &mine;
      meet(lock, /*may_break=*/true);
    }
    std::exception_ptr error;
    try {
      const at::NoGradGuard no_grad;
      check_alike(offers_);
      read(offers_);
    } catch (...) {
      error = std::current_exception();  // others are reading still
    }
    {
      std::unique_lock lock(mutex_);
      meet(lock, /*may_break=*/false);  // they are all inside, so they all come
    }
    if (error) std::rethrow_exception(error);
  }

  void leave(int64_t rank, const std::string& why) {
    const std::scoped_lock lock(mutex_);
    if (left_ >= 0) return;
    left_ = rank, why_ = why;
    changed_.notify_all();
  }
  int64_t first_left() const {
    const std::scoped_lock lock(mutex_);
    return left_;
  }

 private:
  void meet(std::unique_lock<std::mutex>& lock, bool may_break) {
    if (may_break && left_ >= 0) throw RankLost(left_, why_);
    const auto turn = turn_;
    if (++arrived_ == size()) {
      arrived_ = 0, ++turn_;
      changed_.notify_all();
      return;
    }
    changed_.wait(lock, [&] { return turn_ != turn || (may_break && left_ >= 0); });
    if (turn_ == turn) throw RankLost(left_, why_);
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Offers offers_;
  int64_t arrived_ = 0;
  uint64_t turn_ = 0;
  int64_t left_ = -1;
  std::string why_;
};

class ThreadGroup::Rank : public Communicator {
 public:
  Rank(State& state, int64_t rank) : state_(state), rank_(rank) {}
  int64_t rank() const override { return rank_; }
  int64_t size() const override { return state_.size(); }

  void barrier() override {
    state_.exchange(rank_, {.what = "barrier"}, [](const Offers&) {});
  }
  void all_reduce(const at::Tensor& tensor) override {
    at::Tensor sum;
    state_.exchange(rank_, {.what = "all_reduce", .tensors = {tensor}}, [&](const Offers& o) { sum = summed(o); });
    write(tensor, sum);
  }
  void reduce_scatter(const at::Tensor& whole, const at::Tensor& part) override {
    check_parts(whole, part);
    at::Tensor sum;
    state_.exchange(rank_, {.what = "reduce_scatter", .tensors = {whole}}, [&](const Offers& o) { sum = summed(o); });
    write(part, sum.view(-1).narrow(0, rank_ * part.numel(), part.numel()).view_as(part));
  }
  void all_gather(const at::Tensor& part, const at::Tensor& whole) override {
    check_parts(whole, part);
    at::Tensor all;
    state_.exchange(rank_, {.what = "all_gather", .tensors = {part}}, [&](const Offers& o) {
      std::vector<at::Tensor> parts;
      for (const auto* offer : o) parts.push_back(offer->tensors[0].reshape(-1));
      all = at::cat(parts);
    });
    write(whole, all.view_as(whole));
  }
  void broadcast(const at::Tensor& tensor, int64_t from) override {
    check_rank(from);
    at::Tensor copy;
    state_.exchange(rank_, {.what = "broadcast", .from = from, .tensors = {tensor}},
                    [&](const Offers& o) { copy = o[size_t(from)]->tensors[0].clone(); });
    if (rank_ != from) write(tensor, copy);
  }
  void all_to_all(at::TensorList to, at::TensorList from) override {
    DSE_CHECK(int64_t(to.size()) == size() && int64_t(from.size()) == size(), "{} tensors to, {} from {} ranks",
              to.size(), from.size(), size());
    std::vector<at::Tensor> copies;
    const Offer mine{.what = "all_to_all", .tensors = to.vec()};
    state_.exchange(rank_, mine, [&](const Offers& o) {
      for (const auto* offer : o) copies.push_back(offer->tensors[size_t(rank_)].clone());
    });
    // A rank's fault alone: the others have what was sent to them.
    for (size_t r = 0; r < copies.size(); ++r) {
      DSE_CHECK(copies[r].sizes() == from[r].sizes() && copies[r].scalar_type() == from[r].scalar_type(),
                "all_to_all: rank {} sent {} elements, {} are expected", r, copies[r].numel(), from[r].numel());
      write(from[r], copies[r]);
    }
  }
  void sum(std::span<double> values) override {
    reduce("sum", values, [](double a, double b) { return a + b; });
  }
  void max(std::span<double> values) override {
    reduce("max", values, [](double a, double b) { return std::max(a, b); });
  }
  std::vector<std::string> gather_bytes(std::string bytes) override {
    std::vector<std::string> all;
    const Offer mine{.what = "gather_bytes", .bytes = std::move(bytes)};
    state_.exchange(rank_, mine, [&](const Offers& o) {
      for (const auto* offer : o) all.push_back(offer->bytes);
    });
    return all;
  }

 private:
  static void write(const at::Tensor& to, const at::Tensor& values) {
    const at::NoGradGuard no_grad;
    to.copy_(values);
  }
  template <class Join>
  void reduce(std::string_view what, std::span<double> values, const Join& join) {
    std::vector<double> joined;
    state_.exchange(rank_, {.what = what, .numbers = values}, [&](const Offers& o) {
      joined.assign(o[0]->numbers.begin(), o[0]->numbers.end());
      for (size_t r = 1; r < o.size(); ++r)
        for (size_t i = 0; i < joined.size(); ++i) joined[i] = join(joined[i], o[r]->numbers[i]);
    });
    std::ranges::copy(joined, values.begin());
  }

  State& state_;
  int64_t rank_;
};

ThreadGroup::ThreadGroup(int64_t size) : state_(std::make_unique<State>(size)) {
  DSE_CHECK(size > 0, "{} ranks", size);
  for (int64_t r = 0; r < size; ++r) ranks_.push_back(std::make_unique<Rank>(*state_, r));
}
ThreadGroup::~ThreadGroup() = default;
Communicator& ThreadGroup::rank(int64_t rank) { return *ranks_.at(size_t(rank)); }
void ThreadGroup::leave(int64_t rank, const std::string& why) { state_->leave(rank, why); }
int64_t ThreadGroup::first_left() const { return state_->first_left(); }

void run_ranks(int64_t size, const std::function<void(Communicator&)>& body) {
  ThreadGroup group(size);
  std::vector<std::exception_ptr> errors(static_cast<size_t>(size));
  {
    std::vector<std::jthread> threads;
    for (int64_t r = 0; r < size; ++r)
      threads.emplace_back([&, r] {
        std::string why = "has ended";
        try {
          body(group.rank(r));
        } catch (const std::exception& e) {
          errors[size_t(r)] = std::current_exception(), why = e.what();
        } catch (...) {
          errors[size_t(r)] = std::current_exception(), why = "threw something that is no std::exception";
        }
        group.leave(r, why);
      });
  }
  // Who left first is the cause; one that ended well too early is none, and what the others say of it is.
  if (const auto& cause = errors[size_t(group.first_left())]) std::rethrow_exception(cause);
  for (const auto& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace dsengine
