// The mean and the mean square of the gradients of one unit, as AdamW keeps them (base/moment_format.h).
//
//   const MomentKernels by(kernels, MomentFormat::bits8);
//   Moments moments(unit, MomentFormat::bits8, arena.take(Moments::bytes_of(unit, MomentFormat::bits8)), by);  // zero
//   moments.update(draws, [&](int64_t begin, int64_t count, const at::Tensor& mean, const at::Tensor& square) { … });
//   moments.read([&](const std::string& name, const at::Tensor& rows) { file.write(name, rows); });
//
// Elements are those of the unit's trained span, or of the part of it that this rank owns (shards.h); checkpoints have
// what all ranks keep, gathered to a whole. In 8 bits a matrix's rows have blocks of their own; what is no matrix
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
  enum class Extent { own, whole };
  static int64_t bytes_of(const ParamStorage& unit, MomentFormat format, Extent extent = Extent::own);
  // bytes [bytes_of], aligned as an arena aligns.
  Moments(const ParamStorage& unit, MomentFormat format, const at::Tensor& bytes, const MomentKernels& kernels,
          Extent extent = Extent::own);

  // f(begin, count, mean, square): float32 [count], to be changed in place; one piece after the other until all have
  // come. draws: how bf16 is rounded, by element.
  using Piece = std::function<void(int64_t begin, int64_t count, const at::Tensor& mean, const at::Tensor& square)>;
  void update(const Philox& draws, const Piece& f);

  // Of a whole: the parts of all ranks, of which `own` is this one's. A collective.
  void gather(const Moments& own, Communicator& ranks);
  // This rank's part of a whole.
  void take(const Moments& whole);

  // float32 [its elements]: themselves where they are kept so, else a copy.
  at::Tensor mean() const { return values(0); }
  at::Tensor square() const { return values(1); }

  // What is kept of the whole span, by parameter (placement.h): "first_moment/<place>", "second_moment/<place>",
  // float32, bfloat16, or bytes beside "first_moment_scale/<place>" [rows, blocks of a row].
  void read(const PlacedRows& f) const { visit(read_rows, f); }
  void write(const PlacedRows& f) { visit(write_rows, f); }

 private:
  // One of the two; undefined where the format has none.
  struct Kept {
    at::Tensor elements;  // float32 or bfloat16 [its elements], or codes [those of matrices]
    at::Tensor scales;    // of the matrices' blocks, block by block of the layout
    at::Tensor vectors;   // float32, behind the matrices
  };
  // Elements [begin, end) of the trained span, cut at rows.
  struct Span {
    int64_t begin, end;
  };
  struct Sizes {
    int64_t elements, scales, vectors;  // numbers of each
  };
  struct Rows {
    int64_t first, last;
  };
  static Span span_of(const ParamStorage& unit, Extent extent);
  static Sizes sizes_of(const ParamStorage& unit, MomentFormat format, Span span);
  static Rows rows_in(const ParamStorage& unit, Span span, size_t block);
  static int64_t scales_before(const ParamStorage& unit, Span span, size_t block);
  // f(tensor of this, the other's) of each of the three that there are, of both moments.
  template <class F>
  void each_kept(const Moments& other, const F& f) const;
  Rows rows_of(size_t block) const { return rows_in(*unit_, span_, block); }
  at::Tensor values(size_t which) const;
  void visit(void (*rows)(const at::Tensor&, at::IntArrayRef, const std::string&, const PlacedRows&),
             const PlacedRows& f) const;
  at::Tensor scales_of(const Kept& kept, size_t block) const;  // [rows that are in it, blocks of a row]
  // Rows [first, last) of a matrix, or elements of what is kept in bf16, to and from float32.
  void decode(size_t which, size_t block, int64_t first, int64_t last, const at::Tensor& to) const;
  void encode(size_t which, size_t block, int64_t first, int64_t last, const at::Tensor& from, const Philox& draws);
  int64_t row_numel(size_t block) const;
  int64_t begin_of(size_t block) const;  // in the trained span

  const ParamStorage* unit_;
  MomentFormat format_;
  const MomentKernels* kernels_;
  Span span_;
  Kept kept_[2];
};

}  // namespace dsengine
