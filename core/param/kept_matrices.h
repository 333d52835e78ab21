// The matrices of one unit as they are kept while nothing reads them.
//
//   auto codes = std::make_shared<ops::RowCodes>(kernels, ops::RowCode::nf4, at::kFloat);   // null: as they are read
//   KeptMatrices kept(layout, device, at::kFloat, codes);       // zero
//   kept.write(matrices);                                       // [layout.decayed_numel()], of that type
//   kept.read(matrices);                                        // as the codes have them
//
// In NF4 a row has blocks of its own, so that no layout moves their borders.
#pragma once
#include <memory>

#include "ops/row_codes.h"
#include "param/layout.h"

namespace dsengine {

class KeptMatrices {
 public:
  // Charged to the thread's tag. dtype: of matrices that are read and written. codes: of NF4, for that type; null:
  // none.
  KeptMatrices(const ParamLayout& layout, const Device& device, at::ScalarType dtype,
               std::shared_ptr<const ops::RowCodes> codes);

  int64_t bytes() const { return int64_t(elements_.nbytes() + (scales_.defined() ? scales_.nbytes() : 0)); }
  void write(const at::Tensor& matrices);
  void read(const at::Tensor& matrices) const;

 private:
  // f(rows, width, begin, code, scale) of each matrix: its rows, and where its values, codes and scales begin.
  template <class F>
  void each_matrix(const F& f) const;
  // f(values, codes, scales) of each matrix of these.
  template <class F>
  void each_part(const at::Tensor& matrices, const F& f) const;

  ParamLayout layout_;
  std::shared_ptr<const ops::RowCodes> codes_;
  at::Tensor elements_;  // of the type that is read, or bytes of two codes each
  at::Tensor scales_;    // float32; of codes
};

}  // namespace dsengine
