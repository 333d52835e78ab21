#include <ATen/ATen.h>

#include "ops/reference/reference.h"

namespace dsengine::reference {

using at::Tensor;

namespace {

constexpr int64_t kRowBlock = 8;  // BLAS gives the rows of whole blocks the same bits, whatever their number

}  // namespace

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& residual) {
  const int64_t rows = x.size(0), missing = (kRowBlock - rows % kRowBlock) % kRowBlock;
  Tensor whole = x;
  if (missing > 0) {
    whole = at::empty({rows + missing, x.size(1)}, x.options());
    whole.narrow(0, 0, rows).copy_(x);
    whole.narrow(0, rows, missing).zero_();
  }
  Tensor y = at::mm(whole, w.t()).narrow(0, 0, rows);
  if (b.defined()) y.add_(b);
  return residual.defined() ? y.add_(residual) : y;
}

Tensor linear_backward(const Tensor& dy, const Tensor& w) { return dy.mm(w); }

void linear_weight_backward(const Tensor& dy, const Tensor& x, Tensor dw, Tensor db) {
  if (dw.defined()) dw.addmm_(dy.t(), x);
  if (db.defined()) db.add_(dy.sum(0));
}

void embedding_weight_backward(const Tensor& dy, const Tensor& ids, Tensor dtable) { dtable.index_add_(0, ids, dy); }

}  // namespace dsengine::reference
