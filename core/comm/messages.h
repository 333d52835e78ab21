// Ranks as processes that send each other messages. Every collective begins with a word of all to all of what each is
// about to do: calls that do not fit are told on all ranks before anything else is sent.
//
//   MessageCommunicator ranks(transport);
//   ranks.set_deadline(1800);
//
// Past the deadline a collective is given up on with RankLost: whom it waited for, what these were last in, and who
// waits as well. After that, and after a rank has left, no collective is possible any more, and the process is to end.
// An all_reduce is of parts: each rank sums its own part of all ranks', in their order, and the sums are gathered; so
// the bits are those of ThreadCommunicator. Borrows the transport.
#pragma once
#include <chrono>
#include <optional>

#include "comm/communicator.h"
#include "comm/transport.h"

namespace dsengine {

class MessageCommunicator : public Communicator {
 public:
  explicit MessageCommunicator(Transport& transport);
  ~MessageCommunicator() override;

  int64_t rank() const override { return transport_.rank(); }
  int64_t size() const override { return transport_.size(); }
  void barrier() override;
  void all_reduce(const at::Tensor& tensor) override;
  void reduce_scatter(const at::Tensor& whole, const at::Tensor& part) override;
  void all_gather(const at::Tensor& part, const at::Tensor& whole) override;
  void broadcast(const at::Tensor& tensor, int64_t from) override;
  void all_to_all(at::TensorList to, at::TensorList from) override;
  void reduce_parts(const at::Tensor& flat, std::span<const int64_t> cuts) override;
  void gather_parts(const at::Tensor& flat, std::span<const int64_t> cuts) override;
  void sum(std::span<double> values) override;
  void max(std::span<double> values) override;
  std::vector<std::string> gather_bytes(std::string bytes) override;
  void set_deadline(double seconds) override { deadline_ = seconds; }
  bool leave(const std::string& why, bool own) override;

 private:
  enum class Call : uint32_t;
  struct Word;
  class Inside;
  using Words = std::vector<Word>;
  using Send = std::vector<std::span<const std::byte>>;
  using Receive = std::vector<std::span<std::byte>>;

  Send nothing_to_send() const { return Send(size_t(size())); }
  Receive nothing_to_receive() const { return Receive(size_t(size())); }
  // Every rank's word. RankLost where one leaves, InternalError on all where they do not fit.
  Words enter(Word word);
  Words words_of_all(Word& word, double deadline);
  void exchange(const Send& to, const Receive& from, double deadline);
  // The same bytes to all others, and what each sends to place(r).
  template <class Place>
  void swap(std::span<const std::byte> own, const Place& place, double deadline);
  static Word word_of(Call call, const at::Tensor& tensor);
  void check_alike(const Words& words) const;
  std::vector<double> all_numbers(Call call, std::span<const double> values);
  std::vector<int64_t> even_cuts(int64_t numel) const;
  // The words are exchanged. This rank's part becomes the sum, or all parts are each rank's own.
  void reduce(const at::Tensor& flat, std::span<const int64_t> cuts);
  void gather(const at::Tensor& flat, std::span<const int64_t> cuts);
  [[noreturn]] void give_up(double seconds);
  void lose(const std::string& why);
  std::string text_of(const Word& word) const;

  Transport& transport_;
  double deadline_ = 0;  // seconds; 0: none
  uint64_t calls_ = 0;
  std::vector<Word> last_;          // of each rank, the last that came
  std::optional<RankLost> lost_{};  // from then on there are no collectives
  bool tells_ = false;              // of ranks that did not come in time, the first of those that waited
};

}  // namespace dsengine
