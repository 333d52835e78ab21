// Activations that are wrong, each in one way.
#include <dsengine/kernel.hpp>

namespace {

struct Relu {
  static constexpr dse::KernelTraits traits{.op = dse::Op::activation, .row_invariant = true};
  explicit Relu(const dse_operation& o) : width(o.in) {
    if (o.activation != DSE_RELU) throw dse::Unsupported("what is not relu");
  }
  void fill(const dse::Call<traits.op>& call, int64_t rows, float factor) const {
    for (int64_t i = 0; i < rows * width; ++i)
      call.out<float>("y")[i] = call.in<float>("x")[i] > 0 ? call.in<float>("x")[i] * factor : 0;
  }
  int64_t width;
};

struct WrongValue : Relu {
  using Relu::Relu;
  void run(const dse::Call<traits.op>& call) const { fill(call, call.rows(), 1.001f); }
};
struct ForgetsARow : Relu {
  using Relu::Relu;
  void run(const dse::Call<traits.op>& call) const { fill(call, call.rows() - 1, 1); }
};
struct DependsOnRows : Relu {
  using Relu::Relu;
  void run(const dse::Call<traits.op>& call) const { fill(call, call.rows(), call.rows() > 2 ? 1 : 1 + 1e-6f); }
};
struct DependsOnTheCut : Relu {
  using Relu::Relu;
  void run(const dse::Call<traits.op>& call) const {
    fill(call, call.rows(), 1);
    dse::parallel_for(0, call.rows(), 1, [&](int64_t first, int64_t) {
      if (first > 0) call.out<float>("y")[first * width] *= 1 + 1e-6f;
    });
  }
};
struct DeclinesAll : Relu {
  explicit DeclinesAll(const dse_operation& o) : Relu(o) { throw dse::Unsupported("anything"); }
  void run(const dse::Call<traits.op>&) const {}
};

}  // namespace

DSE_PLUGIN("wrong_kernels", "1.0", items.push_back(dse::kernel_item<WrongValue>("wrong_value"));
           items.push_back(dse::kernel_item<ForgetsARow>("forgets_a_row"));
           items.push_back(dse::kernel_item<DependsOnRows>("depends_on_rows"));
           items.push_back(dse::kernel_item<DependsOnTheCut>("depends_on_the_cut"));
           items.push_back(dse::kernel_item<DeclinesAll>("declines_all")))
