// What the ranks of a run have in common: every number that must be the same on all of them goes through here.
//
//   Communicator& ranks = …;                        // LocalCommunicator: one rank, always there
//   ranks.all_reduce(unit.grad());                  // the sum over all ranks, on each of them
//   if (ranks.agree(stop.requested())) save();      // true on all where one asks
//   const Communicator::Purpose purpose(ranks, "gradients");   // of what follows, as errors name it
//
// A collective is called by every rank, in the same order, with arguments that fit: an InternalError on all of them
// where they do not. Sums are made in the order of ranks, and every rank gets the same bits. Tensors are dense, of one
// type, and written in place. A communicator belongs to one thread. Where a rank has left with an error, the others
// get RankLost from the collective they are in or enter next, and no collective is possible any more.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"

namespace dsengine {

// Another rank is gone, or failed where this one did not; the text names it and says why. Its own error is the cause.
class RankLost : public std::runtime_error {
 public:
  RankLost(int64_t rank, const std::string& why);
  int64_t rank() const { return rank_; }

 private:
  int64_t rank_;
};

// Ranks are in collectives that do not fit each other: an error of the program, or another's error is the cause.
struct UnequalCalls : InternalError {
  using InternalError::InternalError;
};

// The error that this rank left with is told by another (Communicator::leave).
struct ToldElsewhere : std::exception {};

class Communicator {
 public:
  Communicator() = default;
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;

  virtual void barrier() = 0;
  // The sum over all ranks.
  virtual void all_reduce(const at::Tensor& tensor) = 0;
  // whole [size * n], part [n]: this rank's part of the sum of the wholes.
  virtual void reduce_scatter(const at::Tensor& whole, const at::Tensor& part) = 0;
  // part [n], whole [size * n]: the parts in the order of ranks. A part may be where it comes to stand in the whole.
  virtual void all_gather(const at::Tensor& part, const at::Tensor& whole) = 0;
  virtual void broadcast(const at::Tensor& tensor, int64_t from) = 0;
  // to[r] goes to rank r, from[r] comes from it; sizes may differ, and both sides know them.
  virtual void all_to_all(at::TensorList to, at::TensorList from) = 0;

  // Parts of any length of a flat tensor, [cuts[r], cuts[r + 1]) of rank r, cut alike on all ranks. reduce_parts: this
  // rank's becomes the sum over all ranks, the others are whatever they are. gather_parts: each rank's comes to all.
  virtual void reduce_parts(const at::Tensor& flat, std::span<const int64_t> cuts);
  virtual void gather_parts(const at::Tensor& flat, std::span<const int64_t> cuts);

  // Numbers in host memory, in place.
  virtual void sum(std::span<double> values) = 0;
  virtual void max(std::span<double> values) = 0;
  // What each rank gave, of any length, in the order of ranks.
  virtual std::vector<std::string> gather_bytes(std::string bytes) = 0;

  std::string broadcast_bytes(std::string bytes, int64_t from);
  // A logical or: true on all ranks where at least one asks for it (to stop, to end the epochs).
  bool agree(bool asked);
  // Runs what each rank does by itself. Where it throws on one, it throws on all: what it threw on that rank, RankLost
  // on the others, and collectives remain possible. Where a body calls collectives, on all ranks, and throws on one of
  // them before another is through, the others get an InternalError, and no collective is possible any more.
  void together(const std::function<void()>& body);
  // The same, on rank 0 before the others begin: it leaves files that they read.
  void zero_first(const std::function<void()>& body);

  // How long a collective waits for the others, in seconds; 0: for ever. Where they can be waited for no longer.
  virtual void set_deadline(double) {}
  // This rank takes part in no further collective, because of an error: those that others enter give RankLost, with
  // `why`. own: the error is this rank's, not what it heard of others. Waits some seconds for them to come to one. True
  // where this rank is to tell it: of those that leave at once, the first with an error of its own does.
  virtual bool leave([[maybe_unused]] const std::string& why, [[maybe_unused]] bool own) { return true; }

  // Until the end of its scope, what collectives are for. The text outlives it.
  class Purpose {
   public:
    Purpose(Communicator& ranks, const char* text) : ranks_(ranks), before_(std::exchange(ranks.purpose_, text)) {}
    ~Purpose() { ranks_.purpose_ = before_; }
    Purpose(const Purpose&) = delete;
    Purpose& operator=(const Purpose&) = delete;

   private:
    Communicator& ranks_;
    const char* before_;
  };

 protected:
  // InternalError where `whole` is not `size` parts of the type.
  void check_parts(const at::Tensor& whole, const at::Tensor& part) const;
  void check_rank(int64_t rank) const;
  void check_cuts(const at::Tensor& flat, std::span<const int64_t> cuts) const;
  static at::Tensor part_of(const at::Tensor& flat, std::span<const int64_t> cuts, int64_t rank);
  const char* purpose() const { return purpose_; }

 private:
  const char* purpose_ = "";
};

}  // namespace dsengine
