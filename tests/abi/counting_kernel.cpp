// Kernels that override two operations: they count their calls, and their results are those of the formula.
// With DSE_KILL_OPERATION=<operation> and DSE_KILL_CALL=<n> the process is killed at that call, as by kill -9:
// how the tests of resuming stop a run in the middle of a rollout, a forward or a backward. At a normal end the
// numbers of calls go to the file DSE_COUNT_FILE.
#include <dsengine/kernel.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

int64_t calls[2];

struct AtEnd {
  ~AtEnd() {
    const char* path = std::getenv("DSE_COUNT_FILE");
    if (std::FILE* file = path ? std::fopen(path, "w") : nullptr) {
      std::fprintf(file, "{\"rms_norm\": %lld, \"rms_norm.backward\": %lld}\n", (long long)calls[0],
                   (long long)calls[1]);
      std::fclose(file);
    }
  }
} at_end;

void count(int which, const char* operation) {
  ++calls[which];
  const char* name = std::getenv("DSE_KILL_OPERATION");
  const char* number = std::getenv("DSE_KILL_CALL");
  if (name && number && std::strcmp(name, operation) == 0 && calls[which] == std::atoll(number)) std::raise(SIGKILL);
}

struct RmsNorm {
  static constexpr dse::KernelTraits traits{.operation = "rms_norm", .score = 10};
  bool supports(const dse_call&) const { return true; }
  void run(const dse_call& call) const {
    count(0, traits.operation);
    const double eps = dse::real_attribute(call, "eps", 0);
    const int64_t width = call.inputs[0].shape[1];
    const auto *x = static_cast<const float*>(call.inputs[0].data), *w = static_cast<const float*>(call.inputs[1].data);
    auto *y = static_cast<float*>(call.outputs[0].data), *rstd = static_cast<float*>(call.outputs[1].data);
    dse::parallel_for(0, call.inputs[0].shape[0], 16, [&](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) {
        double sum = 0;
        for (int64_t i = 0; i < width; ++i) sum += double(x[n * width + i]) * x[n * width + i];
        rstd[n] = float(1 / std::sqrt(sum / double(width) + eps));
        for (int64_t i = 0; i < width; ++i) y[n * width + i] = x[n * width + i] * rstd[n] * w[i];
      }
    });
  }
};

// Declines every call, after counting it: the engine's own backward runs.
struct RmsNormBackward {
  static constexpr dse::KernelTraits traits{.operation = "rms_norm.backward", .score = 10};
  bool supports(const dse_call&) const {
    count(1, traits.operation);
    return false;
  }
  void run(const dse_call&) const {}
};

}  // namespace

extern "C" DSE_EXPORT int64_t dse_test_calls(int which) { return calls[which]; }

DSE_PLUGIN("counting", "1.0", items.push_back(dse::kernel_item<RmsNorm>("counting_rms_norm"));
           items.push_back(dse::kernel_item<RmsNormBackward>("counting_rms_norm_backward")))
