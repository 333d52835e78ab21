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
  static constexpr dse::KernelTraits traits{.op = dse::Op::rms_norm, .priority = 10};
  explicit RmsNorm(const dse_operation& o) : width(o.in), eps(o.eps), shift(o.shift) {}
  void run(const dse::Call<traits.op>& call) const {
    count(0, "rms_norm");
    const float *x = call.in<float>("x"), *w = call.in<float>("w");
    float *y = call.out<float>("y"), *rstd = call.out<float>("rstd");
    dse::parallel_for(0, call.rows(), 16, [&](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) {
        double sum = 0;
        for (int64_t i = 0; i < width; ++i) sum += double(x[n * width + i]) * x[n * width + i];
        rstd[n] = float(1 / std::sqrt(sum / double(width) + eps));
        for (int64_t i = 0; i < width; ++i) y[n * width + i] = x[n * width + i] * rstd[n] * float(w[i] + shift);
      }
    });
  }
  int64_t width;
  double eps, shift;
};

struct RmsNormBackward {
  static constexpr dse::KernelTraits traits{.op = dse::Op::rms_norm_backward, .priority = 10};
  explicit RmsNormBackward(const dse_operation& o) : width(o.in), shift(o.shift) {}
  void run(const dse::Call<traits.op>& call) const {
    count(1, "rms_norm.backward");
    const float *dy = call.in<float>("dy"), *x = call.in<float>("x"), *w = call.in<float>("w");
    const float* rstd = call.in<float>("rstd");
    float* dx = call.out<float>("dx");
    for (int64_t n = 0; n < call.rows(); ++n) {
      const double r = rstd[n];
      double inner = 0;
      for (int64_t i = n * width; i < (n + 1) * width; ++i) inner += dy[i] * (w[i - n * width] + shift) * x[i];
      for (int64_t i = n * width; i < (n + 1) * width; ++i)
        dx[i] = float(dy[i] * (w[i - n * width] + shift) * r - x[i] * inner * r * r * r / double(width));
    }
  }
  int64_t width;
  double shift;
};

// Of a higher priority, but for no model: it says so.
struct Picky {
  static constexpr dse::KernelTraits traits{.op = dse::Op::rms_norm, .priority = 20};
  explicit Picky(const dse_operation& o) { throw dse::Unsupported("a width of " + std::to_string(o.in)); }
  void run(const dse::Call<traits.op>&) const {}
};

}  // namespace

extern "C" DSE_EXPORT int64_t dse_test_calls(int which) { return calls[which]; }

DSE_PLUGIN("counting", "1.0", items.push_back(dse::kernel_item<RmsNorm>("counting_rms_norm"));
           items.push_back(dse::kernel_item<RmsNormBackward>("counting_rms_norm_backward"));
           items.push_back(dse::kernel_item<Picky>("picky_rms_norm")))
