// Calls of each operation of the catalogue to try a kernel with: ragged, odd and empty shapes.
//
//   for (const KernelCase& c : kernel_cases(dse::Op::rms_norm, at::kFloat)) c.run(kernels, c.inputs);
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "ops/kernels.h"

namespace dsengine {

struct KernelCase {
  // The operation's outputs of these inputs, in the inputs' type.
  using Run = std::function<std::vector<at::Tensor>(const Kernels&, const std::vector<at::Tensor>& inputs)>;
  std::string shape;  // for messages
  Operation operation;
  std::vector<at::Tensor> inputs;  // float64 or int64
  Run run;
  // Rows [first, first + count) computed without the others, of the same inputs; none where the outputs are no rows.
  struct Alone {
    int64_t first, count;
    Run run;
  };
  std::vector<Alone> alone;
};

std::vector<KernelCase> kernel_cases(dse::Op op, at::ScalarType dtype);

}  // namespace dsengine
