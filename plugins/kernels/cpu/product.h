// Products of matrices in float32, in an order of summation that depends on nothing but the inner dimension: each
// element of C is one chain of fused multiply-adds, k ascending. So a row has the same bits in any batch, on any number
// of threads, with any instruction set.
//
//   product({.rows = n, .columns = out, .inner = in,
//            .a = {x, in, 1}, .b = {w, 1, in}, .c = y, .c_stride = out, .bias = b});        // y = x wᵀ + b
//
// It packs what it multiplies into small blocks (Goto and van de Geijn 2008), a thread into memory of its own.
#pragma once
#include <cstdint>
#include <functional>

namespace cpu {

// Element (i, j) at data[i * row + j * column]; one of the two is 1.
struct Strided {
  const float* data;
  int64_t row, column;
};

// C [rows, columns] = A [rows, inner] B [inner, columns] + bias [columns] + residual [rows, columns].
struct Product {
  int64_t rows, columns, inner;
  Strided a, b;
  float* c;
  int64_t c_stride;
  const float* bias = nullptr;      // may be null
  const float* residual = nullptr;  // of C's stride; may be null
  bool accumulate = false;          // the chain begins with what C holds
};

// Part of a product that one thread computes: panels [first, last) of columns, of the rows [row, row + rows).
struct ProductPart {
  int64_t row, rows, first, last;
};

void product(const Product& p);
// The same on this thread alone, for a few rows: all of them are packed at once.
void product_here(const Product& p);
// What product calls for each of its parts, on several threads: one that packs its right side itself may stand there.
void each_part(const Product& p, const std::function<void(const Product&, const ProductPart&)>& multiply);

}  // namespace cpu
