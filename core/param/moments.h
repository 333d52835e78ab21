// The mean and the mean square of the gradients of one unit, as AdamW keeps them (base/moment_format.h).
//
//   const MomentKernels by(kernels, MomentFormat::bits8);
//   Moments moments(unit, MomentFormat::bits8, arena.take(Moments::bytes_of(unit, MomentFormat::bits8)), by);  // zero
//   moments.update(draws, [&](int64_t begin, int64_t count, const at::Tensor& mean, const at::Tensor& square) { … });
//   moments.read([&](const std::string& name, const at::Tensor& rows) { file.write(name, rows); });
//
// Elements are those of the unit's trained span. In 8 bits a matrix's rows have blocks of their own; what is no matrix
// stays in float32. Borrows the unit, which is trained, and the kernels, which are of the memory that it lies in.
#pragma once
#include <functional>
#include <vector>

#include "base/moment_format.h"
#include "ops/ops.h"
#include "ops/row_codes.h"
#include "param/placement.h"

namespace dsengine {

struct MomentKernels {
  MomentKernels(const Kernels& kernels, MomentFormat format) : round(kernels) {
    if (format != MomentFormat::bits8) return;
    codes.emplace_back(kernels, ops::RowCode::dynamic_signed, at::kFloat);
    codes.emplace_back(kernels, ops::RowCode::dynamic_unsigned, at::kFloat);
  }
  ops::StochasticRound round;
  std::vector<ops::RowCodes> codes;  // in 8 bits: of the mean, and of the mean square
};

class Moments {
 public:
  static int64_t bytes_of(const ParamStorage& unit, MomentFormat format);
  // bytes [bytes_of], aligned as an arena aligns.
  Moments(const ParamStorage& unit, MomentFormat format, const at::Tensor& bytes, const MomentKernels& kernels);

  // f(begin, count, mean, square): float32 [count], to be changed in place; one piece after the other until all have
  // come. draws: how bf16 is rounded, by element.
  using Piece = std::function<void(int64_t begin, int64_t count, const at::Tensor& mean, const at::Tensor& square)>;
  void update(const Philox& draws, const Piece& f);

  // float32 [trained span]: themselves where they are kept so, else a copy.
  at::Tensor mean() const { return values(0); }
  at::Tensor square() const { return values(1); }

  // What is kept, by parameter (placement.h): "first_moment/<place>", "second_moment/<place>", float32, bfloat16, or
  // bytes beside "first_moment_scale/<place>" [rows, blocks of a row].
  void read(const PlacedRows& f) const { visit(read_rows, f); }
  void write(const PlacedRows& f) { visit(write_rows, f); }

 private:
  // One of the two; undefined where the format has none.
  struct Kept {
    at::Tensor elements;  // float32 or bfloat16 [trained span], or codes [matrices]
    at::Tensor scales;    // of the matrices' blocks, block by block of the layout
    at::Tensor vectors;   // float32, behind the matrices
  };
  at::Tensor values(size_t which) const;
  void visit(void (*rows)(const at::Tensor&, at::IntArrayRef, const std::string&, const PlacedRows&),
             const PlacedRows& f) const;
  at::Tensor scales_of(const Kept& kept, size_t block) const;  // [rows, blocks of a row]
  // Rows [first, last) of a matrix, or elements of what is kept in bf16, to and from float32.
  void decode(size_t which, size_t block, int64_t first, int64_t last, const at::Tensor& to) const;
  void encode(size_t which, size_t block, int64_t first, int64_t last, const at::Tensor& from, const Philox& draws);
  int64_t row_numel(size_t block) const;
  int64_t begin_of(size_t block) const;  // in the trained span

  const ParamStorage* unit_;
  MomentFormat format_;
  const MomentKernels* kernels_;
  Kept kept_[2];
};

}  // namespace dsengine
