// One rank alone: every collective is what it is given. Costs nothing and changes no bit, so that code for many ranks
// is the code for one.
//
//   LocalCommunicator alone;
//   Learner learner(algorithm, roles, batching, clock, alone);
//   alone.all_reduce(gradient);                       // as it is
#pragma once
#include "comm/communicator.h"

namespace dsengine {

class LocalCommunicator : public Communicator {
 public:
  int64_t rank() const override { return 0; }
  int64_t size() const override { return 1; }
  void barrier() override {}
  void all_reduce(const at::Tensor&) override {}
  void reduce_scatter(const at::Tensor& whole, const at::Tensor& part) override;
  void all_gather(const at::Tensor& part, const at::Tensor& whole) override;
  void broadcast(const at::Tensor& tensor, int64_t from) override;
  void all_to_all(at::TensorList to, at::TensorList from) override;
  void reduce_parts(const at::Tensor&, std::span<const int64_t>) override {}
  void gather_parts(const at::Tensor&, std::span<const int64_t>) override {}
  void sum(std::span<double>) override {}
  void max(std::span<double>) override {}
  std::vector<std::string> gather_bytes(std::string bytes) override;
};

// One rank of many whose others are not there, for what is gone through without values: no collective does anything.
class AbsentRanks : public LocalCommunicator {
 public:
  explicit AbsentRanks(int64_t size) : size_(size) {}
  int64_t size() const override { return size_; }

 private:
  int64_t size_;
};

// Where nothing is said of ranks there is one. Any thread: it has no state.
Communicator& alone();

}  // namespace dsengine
