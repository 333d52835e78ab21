#include "ops/verify_kernel.h"

#include <ATen/ATen.h>

#include <cmath>
#include <optional>

#include "base/check.h"
#include "ops/threads.h"
#include "ops/verify_cases.h"

namespace dsengine {

namespace {

using at::Tensor;
using dse::Op;
using Tensors = std::vector<Tensor>;

Tensors cast(const Tensors& tensors, at::ScalarType type) {
  Tensors result;
  for (const auto& t : tensors) result.push_back(t.is_floating_point() ? t.to(type) : t);
  return result;
}

Tensors moved(Tensors tensors, at::Device where) {
  for (auto& t : tensors) t = t.to(where);
  return tensors;
}

double deviation(const Tensor& ours, const Tensor& truth) {
  if (truth.numel() == 0) return 0;
  const Tensor off = (ours.cpu().to(at::kDouble) - truth).abs() / truth.abs().clamp_min(1);
  return at::nan_to_num(off, HUGE_VAL).max().item<double>();
}

at::ScalarType type_of(uint32_t dtype) {
  DSE_CHECK_USER(dtype == DSE_F32 || dtype == DSE_F64 || dtype == DSE_BF16,
                 "kernels are tried in float32, float64 and bfloat16");
  return dtype == DSE_F32 ? at::kFloat : dtype == DSE_F64 ? at::kDouble : at::kBFloat16;
}

// Memory that a kernel forgets to write is not a number.
class FilledMemory {
 public:
  FilledMemory() { set(true, true); }
  ~FilledMemory() { set(deterministic_, fill_); }

 private:
  static void set(bool deterministic, bool fill) {
    at::globalContext().setDeterministicAlgorithms(deterministic, false);
    at::globalContext().setDeterministicFillUninitializedMemory(fill);
  }
  bool deterministic_ = at::globalContext().deterministicAlgorithms();
  bool fill_ = at::globalContext().deterministicFillUninitializedMemory();
};

class Trial {
 public:
  explicit Trial(const Item& item)
      : item_(item),
        dtype_(type_of(item.kernel().dtype)),
        device_(open_device(item.kernel().device == DSE_CPU ? "cpu" : "cuda")) {
    DSE_CHECK_USER(op() < Op::sum_of_squares || op() >= Op::stochastic_round || dtype_ == at::kFloat,
                   "{} is asked for in float32 alone", dse::entry(op()).name);
    kernels_.add(item);
    cases_ = kernel_cases(op(), dtype_);
  }

  std::string results() {
    const FilledMemory filled;
    const double tolerance = dtype_ == at::kDouble ? 1e-9 : dtype_ == at::kFloat ? 1e-4 : 5e-2;
    double worst = 0;
    int declined = 0;
    for (const auto& c : cases_) {
      if (!kernels_.bind(c.operation)) {
        ++declined;
        continue;
      }
      const Tensors given = cast(c.inputs, dtype_);
      const Tensors truth = c.run(Kernels(), cast(given, at::kDouble));
      const Tensors ours = c.run(kernels_, moved(given, device_.where()));
      for (size_t i = 0; i < truth.size(); ++i) {
        const double off = deviation(ours[i], truth[i].to(at::kDouble));
        DSE_CHECK_USER(off <= tolerance, "output {} differs by {} from the reference at {}", i, off, c.shape);
        worst = std::max(worst, off);
      }
    }
    DSE_CHECK_USER(declined < int(cases_.size()), "declined all {} shapes: see the log for its reasons", declined);
    return fmt::format("{}: {} shapes within {:.1e} of the reference, {} declined", dse::entry(op()).name,
                       int(cases_.size()) - declined, worst, declined);
  }

  std::string rows() {
    int compared = 0;
    for (const auto& c : cases_) {
      if (!kernels_.bind(c.operation)) continue;
      const Tensors given = moved(cast(c.inputs, dtype_), device_.where()), all = c.run(kernels_, given);
      const Tensors again = [&] {
        const OneThread one;
        return c.run(kernels_, given);
      }();
      for (size_t i = 0; i < all.size(); ++i)
        DSE_CHECK_USER(at::equal(all[i], again[i]), "output {} has other bits with another number of threads: {}", i,
                       c.shape);
      for (const auto& [first, count, run] : c.alone) {
        const Tensors alone = run(kernels_, given);
        for (size_t i = 0; i < all.size(); ++i, ++compared)
          DSE_CHECK_USER(at::equal(all[i].narrow(0, first, count), alone[i]),
                         "rows have other bits alone than beside others: output {}, {} rows from {} on of {}", i, count,
                         first, c.shape);
      }
    }
    return compared == 0 ? "the same bits on one thread; its results are no rows"
                         : fmt::format("{} results have the same bits alone, and on one thread", compared);
  }

 private:
  Op op() const { return Op(item_.kernel().op); }
  const Item& item_;
  const at::ScalarType dtype_;
  const Device device_;  // the kernel's
  const PluginRegistry none_{{}, {}, {}};
  Kernels kernels_{none_, device_};
  std::vector<KernelCase> cases_;
};

}  // namespace

Checks verify_kernel(const Item& item) {
  const at::NoGradGuard no_grad;
  Checks checks;
  std::optional<Trial> trial;
  checks.push_back(run_check("results", [&] { return trial.emplace(item).results(); }));
  if (trial && (item.kernel().flags & DSE_KERNEL_ROW_INVARIANT))
    checks.push_back(run_check("row invariance", [&] { return trial->rows(); }));
  return checks;
}

}  // namespace dsengine
