#include <ATen/ATen.h>

#include "ops/reference/reference.h"
#include "ops/wide.h"

namespace dsengine::reference {

using at::Tensor;
using ops::widened;

namespace {

constexpr int64_t kRowBlock = 8;  // BLAS gives the rows of whole blocks the same bits, whatever their number

}  // namespace

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& residual) {
  const int64_t rows = x.size(0), missing = (kRowBlock - rows % kRowBlock) % kRowBlock;
  Tensor whole = widened(x);
  if (missing > 0) {
    whole = at::empty({rows + missing, x.size(1)}, whole.options());
    whole.narrow(0, 0, rows).copy_(x);
    whole.narrow(0, rows, missing).zero_();
  }
  Tensor y = at::mm(whole, widened(w).t()).narrow(0, 0, rows);
  if (b.defined()) y.add_(b);
  if (residual.defined()) y.add_(residual);
  return y.to(x.scalar_type());
}

Tensor linear_backward(const Tensor& dy, const Tensor& w) { return widened(dy).mm(widened(w)).to(dy.scalar_type()); }

void linear_weight_backward(const Tensor& dy, const Tensor& x, Tensor dw, Tensor db) {
  const Tensor slopes = widened(dy);
  if (dw.defined() && dw.scalar_type() == slopes.scalar_type())
    dw.addmm_(slopes.t(), widened(x));
  else if (dw.defined())
    dw.add_(slopes.t().mm(widened(x)));
  if (db.defined()) db.add_(slopes.sum(0));
}

void embedding_weight_backward(const Tensor& dy, const Tensor& ids, Tensor dtable) {
  dtable.index_add_(0, ids, dy.to(dtable.scalar_type()));
}

}  // namespace dsengine::reference
