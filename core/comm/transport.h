// Bytes between the processes of a run: what a library of messages offers. The interface of libdsengine_mpi, which
// alone is linked with MPI, and is opened where the process was started as one of several ranks (comm/world.h).
//
//   transport.begin(to, from);                      // to[r] goes to rank r, from[r] comes from it
//   while (!transport.done()) sleep();              // or give up, which ends all use of it
//
// One exchange at a time. What goes from one rank to another comes in the order in which it was sent, and both know how
// long it is. One thread at a time.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace dsengine {

class Transport {
 public:
  virtual ~Transport() = default;
  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;

  // Both of `size` spans, perhaps empty; of this rank itself nothing is sent. The memory is the exchange's until
  // done().
  virtual void begin(std::span<const std::span<const std::byte>> to, std::span<const std::span<std::byte>> from) = 0;
  // Whether rank r has done its part of this exchange: what it sends is there, and it has taken what is sent to it.
  virtual bool arrived(int64_t r) = 0;
  virtual bool done() = 0;
  // The process ends without a word to the others: what it waits for does not come.
  virtual void abandon() = 0;
};

}  // namespace dsengine

// libdsengine_mpi's one function. The transport is its own, until the process ends, which is when MPI ends too; where
// MPI fails, null, and why (until the next call).
extern "C" dsengine::Transport* dsengine_mpi_transport(const char** why);
