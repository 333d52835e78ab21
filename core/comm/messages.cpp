#include "comm/messages.h"

#include <ATen/ATen.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <thread>
#include <utility>

#include "base/check.h"

namespace dsengine {

enum class MessageCommunicator::Call : uint32_t {
  none,
  barrier,
  all_reduce,
  reduce_scatter,
  all_gather,
  broadcast,
  all_to_all,
  reduce_parts,
  gather_parts,
  sum,
  max,
  gather_bytes,
  leave
};

// What a rank is about to do. Plain bytes, alike on all ranks: they run the same program on the same kind of machine.
struct MessageCommunicator::Word {
  Call call = Call::none;
  int32_t type = -1;    // of its tensor
  uint64_t number = 0;  // of the call, from 1
  uint64_t count = 0;   // elements, numbers, or bytes
  int64_t from = 0;     // of a broadcast
  std::array<int64_t, 4> sizes{};
  std::array<char, 32> purpose{};
};

// From the words until all is sent: where that is left by an exception (no memory), the ranks are out of step.
class MessageCommunicator::Inside {
 public:
  explicit Inside(MessageCommunicator& ranks) : ranks_(ranks) {}
  ~Inside() {
    if (std::uncaught_exceptions() > before_ && !done_) ranks_.lose("it left a collective in the middle");
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
  void done() { done_ = true; }

 private:
  MessageCommunicator& ranks_;
  const int before_ = std::uncaught_exceptions();
  bool done_ = false;
};

namespace {

constexpr std::array kNames{"none",      "barrier",      "all_reduce",   "reduce_scatter", "all_gather",
                            "broadcast", "all_to_all",   "reduce_parts", "gather_parts",   "sum",
                            "max",       "gather_bytes", "leave"};
constexpr double kLeaveSeconds = 10;   // for the others to come to a collective
constexpr int64_t kWholeNumel = 4096;  // an all_reduce of no more sends all to all: two exchanges would take longer
constexpr int64_t kPiece = int64_t{1} << 20;  // elements of each rank that are summed at a time
constexpr double kLongestTurn = 1;            // seconds
constexpr double kBytesPerSecond = 5e8;       // at least, while an exchange is watched without sleeping

std::span<std::byte> bytes_of(const at::Tensor& t) {
  return {static_cast<std::byte*>(t.data_ptr()), size_t(t.nbytes())};
}
template <class T>
std::span<std::byte> bytes_of(std::span<T> values) {
  return std::as_writable_bytes(values);
}

// In host memory: itself where it is so.
at::Tensor staged(const at::Tensor& t) { return t.is_cpu() ? t : t.cpu(); }
// What became of it there.
void put_back(const at::Tensor& here, const at::Tensor& t) {
  if (!t.is_cpu()) at::Tensor(t).copy_(here);
}

}  // namespace

MessageCommunicator::MessageCommunicator(Transport& transport)
    : transport_(transport), last_(size_t(transport.size())) {}
MessageCommunicator::~MessageCommunicator() = default;

std::string MessageCommunicator::text_of(const Word& word) const {
  if (word.call == Call::none) return "no call yet";
  std::string text = fmt::format("call {}, {}", word.number, kNames[size_t(word.call)]);
  if (word.type >= 0) {
    text += fmt::format(" of {} elements", word.count);
    if (std::ranges::any_of(word.sizes, [](int64_t n) { return n != 0; }))
      text += fmt::format(" [{}]", fmt::join(word.sizes.begin(), std::ranges::find(word.sizes, 0), ", "));
    text += fmt::format(" of {}", at::toString(at::ScalarType(word.type)));
  } else if (word.count > 0) {
    text += fmt::format(" of {}", word.count);
  }
  if (word.call == Call::broadcast) text += fmt::format(" from rank {}", word.from);
  return word.purpose[0] ? fmt::format("{} ({})", text, word.purpose.data()) : text;
}

// Watched closely for as long as it may take, then seldom: others want the processor. Time in which this process was
// stopped (SIGSTOP) is none in which it waited.
void MessageCommunicator::exchange(const Send& to, const Receive& from, double deadline) try {
  using Clock = std::chrono::steady_clock;
  size_t bytes = 0;
  for (const auto& part : to) bytes += part.size();
  for (const auto& part : from) bytes += part.size();
  transport_.begin(to, from);
  auto before = Clock::now();
  double seconds = 0;
  const double close = 0.001 + double(bytes) / kBytesPerSecond;
  while (!transport_.done()) {
    const auto now = Clock::now();
    seconds += std::min(kLongestTurn, std::chrono::duration<double>(now - std::exchange(before, now)).count());
    if (deadline > 0 && seconds > deadline) give_up(seconds);
    if (seconds < close)
      sched_yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(seconds < 0.1 ? 50 : 500));
  }
} catch (const RankLost&) {
  throw;
} catch (const std::exception& error) {  // MPI's
  lose(error.what());
  throw;
}

template <class Place>
void MessageCommunicator::swap(std::span<const std::byte> own, const Place& place, double deadline) {
  Send to = nothing_to_send();
  Receive from = nothing_to_receive();
  for (size_t r = 0; r < to.size(); ++r)
    if (int64_t(r) != rank()) to[r] = own, from[r] = place(r);
  exchange(to, from, deadline);
}

// What this rank was about to do is left in the middle: the others are out of step with it.
void MessageCommunicator::lose(const std::string& why) {
  if (lost_) return;
  transport_.abandon();
  tells_ = true;
  lost_.emplace(rank(), why);
}

void MessageCommunicator::give_up(double seconds) {
  std::string missing, waiting;
  int64_t first = -1;
  bool told_before = false;
  for (int64_t r = 0; r < size(); ++r) {
    if (r == rank()) continue;
    const bool here = transport_.arrived(r);
    if (here && !told_before) told_before = r < rank();
    if (!here && first < 0) first = r;
    auto& list = here ? waiting : missing;
    list += (list.empty() ? "" : "; ");
    list += here ? fmt::format("rank {}", r) : fmt::format("rank {} last told of {}", r, text_of(last_[size_t(r)]));
  }
  transport_.abandon();
  tells_ = !told_before;
  lost_.emplace(
      std::max<int64_t>(first, 0),
      fmt::format("did not come within {:.0f} s (collective_timeout) to {} of rank {}: {}{}", seconds,
                  text_of(last_[size_t(rank())]), rank(), missing, waiting.empty() ? "" : "; waiting too: " + waiting));
  throw *lost_;
}

MessageCommunicator::Words MessageCommunicator::words_of_all(Word& word, double deadline) {
  if (lost_) throw *lost_;
  word.number = ++calls_;
  const std::string_view what = purpose();
  std::copy_n(what.begin(), std::min(what.size(), word.purpose.size() - 1), word.purpose.begin());
  last_[size_t(rank())] = word;
  Words words(last_.size());
  words[size_t(rank())] = word;
  swap(
      std::as_bytes(std::span(&word, 1)), [&](size_t r) { return bytes_of(std::span(&words[r], 1)); }, deadline);
  last_ = words;
  return words;
}

MessageCommunicator::Words MessageCommunicator::enter(Word word) {
  Words words = words_of_all(word, deadline_);
  std::vector<std::string> texts(words.size());
  Receive from = nothing_to_receive();
  for (size_t r = 0; r < words.size(); ++r)
    if (words[r].call == Call::leave) {
      if (!lost_) lost_.emplace(int64_t(r), "");
      texts[r].resize(words[r].count);
      from[r] = bytes_of(std::span(texts[r]));
    }
  if (lost_) {
    exchange(nothing_to_send(), from, deadline_);
    lost_.emplace(lost_->rank(), texts[size_t(lost_->rank())]);
    throw *lost_;
  }
  check_alike(words);
  return words;
}

bool MessageCommunicator::leave(const std::string& why, bool own) {
  if (lost_) return tells_;
  int64_t teller = rank();
  bool known = own;  // that the teller's error is its own
  try {
    Word word{.call = Call::leave, .count = why.size(), .from = own};
    const Words words = words_of_all(word, kLeaveSeconds);
    std::vector<std::string> texts(words.size());
    Send to = nothing_to_send();
    Receive from = nothing_to_receive();
    for (size_t r = 0; r < words.size(); ++r) {
      if (int64_t(r) == rank()) continue;
      to[r] = std::as_bytes(std::span(why));
      if (words[r].call != Call::leave) continue;
      if ((!known && words[r].from) || (known == bool(words[r].from) && int64_t(r) < teller))
        teller = int64_t(r), known = words[r].from;
      texts[r].resize(words[r].count);
      from[r] = bytes_of(std::span(texts[r]));
    }
    exchange(to, from, kLeaveSeconds);
    lost_.emplace(rank(), why);
    if (teller == rank()) transport_.abandon();  // MPI ends the others when this one ends
  } catch (const std::exception&) {              // some do not come, or MPI knows that they cannot
    transport_.abandon();
  }
  return teller == rank();
}

// By rank 0's; of every rank the same verdict.
void MessageCommunicator::check_alike(const Words& words) const {
  const Word& first = words[0];
  for (size_t r = 1; r < words.size(); ++r) {
    const Word& other = words[r];
    const bool same = other.call == first.call && other.type == first.type && other.from == first.from &&
                      (first.call == Call::gather_bytes || first.call == Call::all_to_all ||
                       (other.count == first.count && other.sizes == first.sizes));
    if (!same) throw UnequalCalls(fmt::format("rank 0 is in {}, rank {} in {}", text_of(first), r, text_of(other)));
  }
}

void MessageCommunicator::barrier() { enter({.call = Call::barrier}); }

// Of more dimensions than there is room for the first.
MessageCommunicator::Word MessageCommunicator::word_of(Call call, const at::Tensor& tensor) {
  Word word{.call = call, .type = int32_t(tensor.scalar_type()), .count = uint64_t(tensor.numel())};
  std::copy_n(tensor.sizes().begin(), std::min(word.sizes.size(), tensor.sizes().size()), word.sizes.begin());
  return word;
}

std::vector<int64_t> MessageCommunicator::even_cuts(int64_t numel) const {
  std::vector<int64_t> cuts;
  for (int64_t r = 0; r <= size(); ++r) cuts.push_back(std::min(numel, (numel + size() - 1) / size() * r));
  return cuts;
}

// A piece of all parts at a time. Sums are made in the order of ranks, and where this rank's own values lie: a + b is b
// + a.
void MessageCommunicator::reduce(const at::Tensor& flat, std::span<const int64_t> cuts) {
  const auto own = size_t(rank()), all = size_t(size());
  const auto piece = [&](size_t r, int64_t at) {
    const int64_t begin = std::min(cuts[r] + at, cuts[r + 1]);
    return flat.narrow(0, begin, std::min(kPiece, cuts[r + 1] - begin));
  };
  int64_t longest = 0;
  for (size_t r = 0; r < all; ++r) longest = std::max(longest, cuts[r + 1] - cuts[r]);
  const at::Tensor buffer = at::empty({size(), std::min(kPiece, cuts[own + 1] - cuts[own])}, flat.options());
  for (int64_t at = 0; at < longest; at += kPiece) {
    const at::Tensor sum = piece(own, at);
    const auto from_rank = [&](size_t r) { return buffer[int64_t(r)].narrow(0, 0, sum.numel()); };
    Send to = nothing_to_send();
    Receive from = nothing_to_receive();
    for (size_t r = 0; r < all; ++r)
      if (r != own) to[r] = bytes_of(piece(r, at)), from[r] = bytes_of(from_rank(r));
    exchange(to, from, deadline_);
    for (size_t r = 1; r < own; ++r) from_rank(0).add_(from_rank(r));
    if (own > 0) sum.add_(from_rank(0));
    for (size_t r = own + 1; r < all; ++r) sum.add_(from_rank(r));
  }
}

void MessageCommunicator::gather(const at::Tensor& flat, std::span<const int64_t> cuts) {
  const auto part = [&](size_t r) { return bytes_of(part_of(flat, cuts, int64_t(r))); };
  swap(part(size_t(rank())), part, deadline_);
}

void MessageCommunicator::reduce_parts(const at::Tensor& flat, std::span<const int64_t> cuts) {
  const at::NoGradGuard no_grad;
  check_cuts(flat, cuts);
  enter(word_of(Call::reduce_parts, flat));
  Inside inside(*this);
  const at::Tensor here = staged(flat);
  reduce(here, cuts);
  put_back(part_of(here, cuts, rank()), part_of(flat, cuts, rank()));
}

void MessageCommunicator::gather_parts(const at::Tensor& flat, std::span<const int64_t> cuts) {
  const at::NoGradGuard no_grad;
  check_cuts(flat, cuts);
  enter(word_of(Call::gather_parts, flat));
  Inside inside(*this);
  const at::Tensor here = staged(flat);
  gather(here, cuts);
  put_back(here, flat);
}

void MessageCommunicator::all_reduce(const at::Tensor& tensor) {
  const at::NoGradGuard no_grad;
  DSE_CHECK(tensor.is_contiguous(), "all_reduce of a tensor that is not dense");
  const int64_t n = tensor.numel();
  enter(word_of(Call::all_reduce, tensor));
  Inside inside(*this);
  if (n == 0) return;
  const at::Tensor here = staged(tensor), flat = here.view(-1);
  if (n <= kWholeNumel) {
    const at::Tensor all = at::empty({size(), n}, here.options());
    swap(
        bytes_of(flat), [&](size_t r) { return bytes_of(all[int64_t(r)]); }, deadline_);
    all[rank()].copy_(flat);
    for (int64_t r = 1; r < size(); ++r) all[0].add_(all[r]);
    at::Tensor(tensor).copy_(all[0].view_as(tensor));
    return;
  }
  const auto cuts = even_cuts(n);
  reduce(flat, cuts);
  gather(flat, cuts);
  put_back(here, tensor);
}

void MessageCommunicator::reduce_scatter(const at::Tensor& whole, const at::Tensor& part) {
  const at::NoGradGuard no_grad;
  check_parts(whole, part);
  enter(word_of(Call::reduce_scatter, whole));
  Inside inside(*this);
  if (part.numel() == 0) return;
  const at::Tensor sums = whole.is_cpu() ? whole.clone() : whole.cpu();
  const auto cuts = even_cuts(whole.numel());
  reduce(sums.view(-1), cuts);
  at::Tensor(part).copy_(part_of(sums.view(-1), cuts, rank()).view_as(part));
}

void MessageCommunicator::all_gather(const at::Tensor& part, const at::Tensor& whole) {
  const at::NoGradGuard no_grad;
  check_parts(whole, part);
  enter(word_of(Call::all_gather, part));
  Inside inside(*this);
  if (part.numel() == 0) return;
  const at::Tensor here = whole.is_cpu() ? whole : at::empty(whole.sizes(), whole.options().device(at::kCPU));
  const auto cuts = even_cuts(whole.numel());
  if (const at::Tensor place = part_of(here.view(-1), cuts, rank()); place.data_ptr() != part.data_ptr())
    place.copy_(part.view(-1));
  gather(here.view(-1), cuts);
  put_back(here, whole);
}

void MessageCommunicator::broadcast(const at::Tensor& tensor, int64_t from) {
  const at::NoGradGuard no_grad;
  check_rank(from);
  DSE_CHECK(tensor.is_contiguous(), "broadcast of a tensor that is not dense");
  Word word = word_of(Call::broadcast, tensor);
  word.from = from;
  enter(word);
  Inside inside(*this);
  if (tensor.numel() == 0) return;
  const at::Tensor here = staged(tensor);
  Send to = nothing_to_send();
  Receive receive = nothing_to_receive();
  for (int64_t r = 0; r < size() && rank() == from; ++r)
    if (r != rank()) to[size_t(r)] = bytes_of(here);
  if (rank() != from) receive[size_t(from)] = bytes_of(here);
  exchange(to, receive, deadline_);
  put_back(here, tensor);
}

// Sizes first, so that a wrong one is a rank's own error: the others have what was sent to them.
void MessageCommunicator::all_to_all(at::TensorList to, at::TensorList from) {
  const at::NoGradGuard no_grad;
  DSE_CHECK(int64_t(to.size()) == size() && int64_t(from.size()) == size(), "{} tensors to, {} from {} ranks",
            to.size(), from.size(), size());
  for (const auto* tensors : {&to, &from})
    for (const at::Tensor& tensor : *tensors)
      DSE_CHECK(tensor.is_contiguous(), "all_to_all of a tensor that is not dense");
  enter({.call = Call::all_to_all});
  Inside inside(*this);
  struct Sent {
    int64_t numel, type;
  };
  std::vector<Sent> out(to.size()), in(to.size());
  Send send = nothing_to_send();
  Receive receive = nothing_to_receive();
  for (size_t r = 0; r < out.size(); ++r) {
    out[r] = {to[r].numel(), int64_t(to[r].scalar_type())};
    send[r] = std::as_bytes(std::span(&out[r], 1));
    receive[r] = std::as_writable_bytes(std::span(&in[r], 1));
  }
  send[size_t(rank())] = {}, receive[size_t(rank())] = {};
  exchange(send, receive, deadline_);
  in[size_t(rank())] = out[size_t(rank())];

  std::vector<at::Tensor> staged_to, came;
  for (size_t r = 0; r < out.size(); ++r) {
    staged_to.push_back(staged(to[r]));
    came.push_back(at::empty({in[r].numel}, at::TensorOptions().dtype(at::ScalarType(in[r].type))));
    if (int64_t(r) == rank()) continue;
    send[r] = bytes_of(staged_to[r]), receive[r] = bytes_of(came[r]);
  }
  exchange(send, receive, deadline_);
  inside.done();
  came[size_t(rank())].copy_(staged_to[size_t(rank())].view(-1));
  for (size_t r = 0; r < came.size(); ++r) {
    DSE_CHECK(came[r].numel() == from[r].numel() && came[r].scalar_type() == from[r].scalar_type(),
              "all_to_all: rank {} sent {} elements, {} are expected", r, came[r].numel(), from[r].numel());
    at::Tensor(from[r]).copy_(came[r].view_as(from[r]));
  }
}

// [size * n], in the order of ranks.
std::vector<double> MessageCommunicator::all_numbers(Call call, std::span<const double> values) {
  enter({.call = call, .count = values.size()});
  Inside inside(*this);
  std::vector<double> all(values.size() * size_t(size()));
  const auto place = [&](size_t r) { return std::span(all).subspan(r * values.size(), values.size()); };
  std::ranges::copy(values, place(size_t(rank())).begin());
  if (!values.empty())
    swap(
        std::as_bytes(values), [&](size_t r) { return bytes_of(place(r)); }, deadline_);
  return all;
}

void MessageCommunicator::sum(std::span<double> values) {
  const auto all = all_numbers(Call::sum, values);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = all[i];
    for (size_t at = i + values.size(); at < all.size(); at += values.size()) values[i] += all[at];
  }
}

void MessageCommunicator::max(std::span<double> values) {
  const auto all = all_numbers(Call::max, values);
  for (size_t i = 0; i < values.size(); ++i)
    for (size_t at = i; at < all.size(); at += values.size()) values[i] = std::max(values[i], all[at]);
}

std::vector<std::string> MessageCommunicator::gather_bytes(std::string bytes) {
  const Words words = enter({.call = Call::gather_bytes, .count = bytes.size()});
  Inside inside(*this);
  std::vector<std::string> all(words.size());
  const auto place = [&](size_t r) {
    all[r].resize(words[r].count);
    return bytes_of(std::span(all[r]));
  };
  swap(std::as_bytes(std::span(std::as_const(bytes))), place, deadline_);
  all[size_t(rank())] = std::move(bytes);
  return all;
}

}  // namespace dsengine
