// What a model's work comes to at least: bytes of weights that a token in the making reads, and floating-point
// operations of matrix products. Attention's own products are left out.
//
//   const ModelWork work = ModelWork::of(model);
//   const double gflop = work.forward(tokens, answers) / 1e9;    // the output layer at answers' tokens alone
//   const double step = work.training(tokens, answers) / 1e9;    // forward, and twice that backward
#pragma once
#include "model/model.h"

namespace dsengine {

struct ModelWork {
  int64_t matrices = 0;  // weights of the layers' products
  int64_t head = 0;      // of the output layer
  int64_t others = 0;    // norms and biases
  int64_t size = 4;      // bytes of a weight

  static ModelWork of(const Model& model);
  // Of weights that one token in the making reads; of an embedding it reads a row.
  double read_bytes(Packing packing) const;
  // Floating-point operations: of `tokens` through the layers, and of the output layer where it is read. A value
  // model's is none.
  double forward(int64_t tokens, int64_t outputs) const {
    return 2 * (double(matrices) * double(tokens) + double(head) * double(outputs));
  }
  double training(int64_t tokens, int64_t outputs) const { return 3 * forward(tokens, outputs); }
};

}  // namespace dsengine
