// Products as their definition has them, in place of cuBLASLt.
#include "product.h"

#include "gpu.h"

namespace gpu {

struct Products::Plans {};
Products::Products(const dse_operation&) : plans_(nullptr) {}
Products::~Products() = default;

namespace {

float read(const void* from, uint32_t type, int64_t i) {
  return type == DSE_F32 ? static_cast<const float*>(from)[i] : number(static_cast<const bf16*>(from)[i]);
}

}  // namespace

void Products::run(const Product& p) const {
  // The caller keeps nothing there; all of it would be a page fault for each of its pages.
  constexpr size_t touched = 4096;
  std::memset(p.workspace, 0xff, touched);
  std::memset(static_cast<char*>(p.workspace) + kWorkspace - touched, 0xff, touched);
  for (int64_t n = 0; n < p.rows; ++n)
    for (int64_t i = 0; i < p.columns; ++i) {
      double sum = 0;
      for (int64_t k = 0; k < p.inner; ++k)
        sum += double(read(p.a, p.type, p.a_transposed ? k * p.rows + n : n * p.inner + k)) *
               read(p.b, p.type, p.b_transposed ? i * p.inner + k : k * p.columns + i);
      const int64_t at = n * p.columns + i;
      if (p.bias) sum += read(p.bias, p.type, i);
      if (p.residual) sum += read(p.residual, p.type, at);
      if (p.accumulate) sum += read(p.c, p.c_type, at);
      if (p.c_type == DSE_F32)
        static_cast<float*>(p.c)[at] = float(sum);
      else
        static_cast<bf16*>(p.c)[at] = element<bf16>(float(sum));
    }
}

}  // namespace gpu
