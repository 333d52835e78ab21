// Where the parameters of one section (an embedding, a layer, the final norm, a head) lie in one flat buffer. Pure: no
// memory is taken here.
//
//   const ParamLayout layout("layers.0", blocks, /*element_size=*/4);
//   at::Tensor flat = device.empty({layout.numel()}, at::kFloat);
//   at::Tensor qkv = layout.block_of(flat, 0);         // [q|k|v rows, in], a view
//
// Blocks that weight decay applies to (matrices) come first, then the others (norms, biases), each at a multiple of 128
// bytes; the parts of a block are adjacent rows, so that a fused read of q|k|v is a view. Or they alternate in groups
// of rows, where a kernel wants gate and up so.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "base/choice.h"

namespace dsengine {

enum class Init { normal, zeros, ones };

// What a parameter is in its model, as the plugin declared it: adapters' targets, what is trained beside them, and how
// a tensor is split over ranks follow from it. The linears of layers stand together, from q to linear.
enum class ParamRole { embedding, positions, head, value_head, norm, q, k, v, o, gate, up, down, linear, adapter };
template <>
inline constexpr auto kChoices<ParamRole> = std::to_array<const char*>({"embedding", "positions", "head", "value_head",
                                                                        "norm", "q", "k", "v", "o", "gate", "up",
                                                                        "down", "linear", "adapter"});

// One tensor of the checkpoint, as the engine stores it: [out, in] for matrices.
struct ParamSpec {
  std::string tensor;  // checkpoint name
  std::vector<int64_t> shape;
  Init init = Init::normal;
  bool transposed = false;  // the checkpoint stores [in, out]
  int64_t first_row = -1;   // ≥0: where it begins in a checkpoint tensor shared with others
  int64_t group_rows = 0;   // >0: there in groups of so many rows, which begin `group_stride` rows apart
  int64_t group_stride = 0;
  ParamRole role = ParamRole::linear;

  bool is_bias() const { return role != ParamRole::norm && shape.size() == 1; }
};

// Along which dimension a parameter is cut where ranks share its layer (Shoeybi et al. 2019): q, k, v, gate, up and
// their biases by rows, o and down by columns (their biases whole), a table of the vocabulary by rows.
enum class SplitAxis { none, rows, columns };
SplitAxis split_axis(const ParamSpec& spec);

// Parameters that are read together: same shape but for the first dimension.
struct ParamBlock {
  std::vector<ParamSpec> parts;
  // g > 0: the parts' rows alternate in groups of g: gate's [0, g), up's [0, g), gate's [g, 2g), … All parts have one
  // number of rows, a multiple of g. A bias lies as its weight does.
  int64_t interleave = 0;
  bool decay() const { return parts[0].shape.size() > 1; }
  int64_t rows() const;
  int64_t row_numel() const;
};

// Rows [first, first + rows) of a block.
struct RowSpan {
  int64_t first, rows;
};
// What rank `rank` of `size` owns of a block whose parts are cut by rows (SplitAxis::rows), each into `size` equal
// shares: one span, which holds its share of every part. So it is of a single part, and where the parts alternate by a
// g that divides a share; with g = a whole share the span is the rank's gate rows, then its up rows. InternalError
// where the rank's rows are apart.
RowSpan rows_of_rank(const ParamBlock& block, int64_t rank, int64_t size);

// Of the rows [block.rows(), …] of a block, or of what there is of each of them, those of one part, [rows, …]; where
// the parts alternate by g, [rows / g, g, …], strided.
at::Tensor part_rows(const ParamBlock& block, size_t part, const at::Tensor& rows);

class ParamLayout {
 public:
  // InternalError where a block's parts cannot alternate as it says.
  ParamLayout(std::string name, std::vector<ParamBlock> blocks, int64_t element_size);

  const std::string& name() const { return name_; }
  const std::vector<ParamBlock>& blocks() const { return blocks_; }
  int64_t numel() const { return numel_; }  // of the buffer, padding included
  int64_t parameter_count() const { return parameter_count_; }
  // Elements [0, decayed_numel) are under weight decay.
  int64_t decayed_numel() const { return decayed_numel_; }
  // Elements of a block, and its first.
  int64_t numel_of(size_t block) const { return blocks_[block].rows() * blocks_[block].row_numel(); }
  int64_t offset_of(size_t block) const { return offsets_[block]; }
  // The elements behind a block up to the next.
  int64_t padding_of(size_t block) const;

  // From the first of these blocks to the end of the last. InternalError where another matrix lies between: weight
  // decay would move it.
  struct Span {
    int64_t begin, numel;
  };
  std::optional<Span> span_of(const std::vector<bool>& which) const;

  // Views of a buffer that begins at element `begin` of the layout: a block [rows, …], and one of its parts [rows, …];
  // of a block whose parts alternate by g, [rows / g, g, …], strided: reshaped to the part's shape it is a copy.
  at::Tensor block_of(const at::Tensor& flat, size_t block, int64_t begin = 0) const;
  at::Tensor part_of(const at::Tensor& flat, size_t block, size_t part, int64_t begin = 0) const;

 private:
  std::string name_;
  std::vector<ParamBlock> blocks_;
  std::vector<int64_t> offsets_;  // of each block, in elements
  int64_t alignment_ = 1, numel_ = 0, parameter_count_ = 0, decayed_numel_ = 0;
};

}  // namespace dsengine
