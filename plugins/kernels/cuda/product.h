// Products of matrices. On cards by cuBLASLt, which is opened when the first one is bound.
//
//   const Products products(operation);                            // Unsupported: there is no cuBLASLt
//   products.run({.rows = N, .columns = O, .inner = I, .a = x, .b = w, .b_transposed = true, .c = y, …});
//
// Sums are float32's. A row's bits may depend on how many there are: cuBLASLt takes another kernel then.
#pragma once
#include <cstdint>

#include "dsengine/abi.h"

namespace gpu {

// c [rows, columns] = a [rows, inner] b [inner, columns] + bias [columns] + residual [rows, columns]. Transposed: it
// lies as [inner, rows], or [columns, inner]. accumulate: c is added to.
struct Product {
  int64_t rows, columns, inner;
  const void *a, *b;
  bool a_transposed = false, b_transposed = false;
  void* c;
  uint32_t type = 0, c_type = 0;  // DSE_F32 or DSE_BF16: of a, b, bias and residual, and of c
  bool accumulate = false;        // c has bias' and residual's type, or there are none
  const void *bias = nullptr, *residual = nullptr;
  void* workspace = nullptr;  // Products::kWorkspace bytes
  void* stream = nullptr;
};

class Products {
 public:
  static constexpr int64_t kWorkspace = int64_t{32} << 20;  // what NVIDIA advises for Hopper
  explicit Products(const dse_operation& operation);
  ~Products();
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;
  void run(const Product& product) const;

 private:
  struct Plans;
  Plans* plans_;
};

}  // namespace gpu
