// The ranks that this process was started as one of, told by the environment that mpirun and Slurm set.
//
//   const std::unique_ptr<Communicator> ranks = open_world();        // one rank: LocalCommunicator
//   check_alike(*ranks, "settings", config.resolved);                // UserError where ranks have others
//   set_up_threads(threads_of_rank(*ranks));
//
// MPI is opened where there are several ranks, and not otherwise: a program that is started alone needs none.
#pragma once
#include <memory>

#include "comm/communicator.h"

namespace dsengine {

// What the environment says; of a process that is started alone one rank of one.
struct WorldPlace {
  int64_t rank = 0, size = 1;
  enum class By { alone, mpi, torchrun } by = By::alone;
};
WorldPlace world_place();
// Whether an error that all ranks have alike is another's to tell: rank 0's, where mpirun has started them.
bool told_by_rank_0();
// mpirun ends all ranks as soon as one has ended by itself, which is to be the one that tells why: the others wait for
// it to have done so, some minutes at most.
void wait_to_be_ended();

// UserError: there are several ranks, and nothing to speak with (no MPI; torchrun's ranks on the cpu).
std::unique_ptr<Communicator> open_world();

// UserError on all ranks where a text is not the same on all of them, naming the first rank that has another.
void check_alike(Communicator& ranks, const char* what, const std::string& text);

// Of those on this machine.
struct Neighbours {
  int64_t ranks = 1;      // this one counted
  double processors = 1;  // this rank's share of those it may run on: one that k ranks may use counts 1 / k
};
Neighbours neighbours_of(Communicator& ranks);

}  // namespace dsengine
