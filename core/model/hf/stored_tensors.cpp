#include "model/hf/stored_tensors.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <span>

#include "base/check.h"
#include "device/device.h"
#include "ops/threads.h"

namespace dsengine {
namespace {

constexpr int64_t kPiece = 1 << 18;  // floats read at a time

// Where the rows of a parameter lie in its checkpoint tensor [out, in]: first row and count of each run.
std::vector<std::pair<int64_t, int64_t>> runs_of(const ParamSpec& spec) {
  const int64_t begin = std::max<int64_t>(0, spec.first_row), rows = spec.shape[0];
  if (spec.group_rows == 0) return {{begin, rows}};
  std::vector<std::pair<int64_t, int64_t>> runs;
  for (int64_t done = 0; done < rows; done += spec.group_rows)
    runs.emplace_back(begin + done / spec.group_rows * spec.group_stride, spec.group_rows);
  return runs;
}

// f(first, rows): rows [first, first + n) of the checkpoint tensor [out, in] are `rows` [n, …] of the parameter. A run
// is cut where the parameter's own rows are apart.
template <class F>
void for_each_run(const StoredPiece& piece, const F& f) {
  const auto& [spec, tensor] = piece;
  const bool apart = tensor.dim() > int64_t(spec->shape.size());
  const int64_t group = apart ? tensor.size(1) : spec->shape[0];
  int64_t done = 0;
  for (auto [first, left] : runs_of(*spec))
    while (left > 0) {
      const int64_t n = std::min(left, group - done % group);
      f(first, apart ? tensor.select(0, done / group).narrow(0, done % group, n) : tensor.narrow(0, done, n));
      first += n, left -= n, done += n;
    }
}

std::span<float> floats_of(const at::Tensor& tensor) {
  return {tensor.mutable_data_ptr<float>(), size_t(tensor.numel())};
}

// f(first, count) for pieces of `rows` rows of `width` elements.
template <class F>
void for_each_piece(int64_t rows, int64_t width, F&& f) {
  const int64_t most = std::max<int64_t>(1, kPiece / std::max<int64_t>(1, width));
  for (int64_t first = 0; first < rows; first += most) f(first, std::min(most, rows - first));
}

// Rows [first, first + to's rows) of a checkpoint tensor: by all threads straight to where they belong, or in pieces
// where they change their type.
void read_rows(const WeightDirectory& weights, const std::string& name, int64_t first, const at::Tensor& to) {
  if (!to.is_cpu() && !to.is_meta())
    return edit_on_host(to, [&](const at::Tensor& here) { read_rows(weights, name, first, here); });
  const int64_t rows = to.size(0), width = to.numel() / std::max<int64_t>(1, rows);
  if (to.scalar_type() == at::kFloat) {
    const int64_t grain = std::max<int64_t>(1, kPiece / std::max<int64_t>(1, width));
    parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
      weights.read_f32(name, first + begin, end - begin,
                       floats_of(to).subspan(size_t(begin * width), size_t((end - begin) * width)));
    });
    return;
  }
  for_each_piece(rows, width, [&](int64_t begin, int64_t count) {
    const at::Tensor piece = to.narrow(0, begin, count), buffer = Device::host().empty(piece.sizes(), at::kFloat);
    weights.read_f32(name, first + begin, count, floats_of(buffer));
    piece.copy_(buffer);
  });
}

// The checkpoint has [in, out].
void read_transposed(const WeightDirectory& weights, const std::string& name, const StoredTensor& stored) {
  const auto shape = stored.shape();
  for_each_piece(shape[0], shape[1], [&](int64_t begin, int64_t count) {
    const at::Tensor buffer = Device::host().empty({count, shape[1]}, at::kFloat);
    weights.read_f32(name, begin, count, floats_of(buffer));
    for (const auto& piece : stored.pieces)
      for_each_run(piece, [&](int64_t first, const at::Tensor& rows) {
        rows.narrow(1, begin, count).copy_(buffer.narrow(1, first, rows.size(0)).t());
      });
  });
}

}  // namespace

std::vector<StoredPiece> pieces_of(const std::vector<Model::NamedTensor>& tensors) {
  std::vector<StoredPiece> pieces;
  for (const auto& named : tensors) pieces.push_back({named.spec, named.tensor});
  return pieces;
}

std::vector<int64_t> StoredTensor::shape() const {
  const ParamSpec& first = *pieces[0].spec;
  std::vector<int64_t> shape = first.shape;
  shape[0] = 0;
  for (const auto& piece : pieces) shape[0] += piece.spec->shape[0];
  if (first.transposed) std::swap(shape[0], shape[1]);
  return shape;
}

void StoredTensor::check(const WeightDirectory& weights, const std::string& as, const std::string& where) const {
  const auto& entry = weights.at(as);
  DSE_CHECK_USER(entry.shape == shape(), "{}: tensor {} has shape {}, the config asks for {}", where, as,
                 shape_text(entry.shape), shape_text(shape()));
}

void StoredTensor::read(const WeightDirectory& weights, const std::string& as, const std::string& where) const {
  check(weights, as, where);
  if (pieces[0].tensor.is_meta()) return;
  if (pieces[0].spec->transposed) return read_transposed(weights, as, *this);
  for (const auto& piece : pieces)
    for_each_run(piece, [&](int64_t first, const at::Tensor& rows) { read_rows(weights, as, first, rows); });
}

at::Tensor StoredTensor::joined() const {
  const ParamSpec& first = *pieces[0].spec;
  at::Tensor whole;
  if (first.first_row >= 0) {
    std::vector<int64_t> all = first.shape;
    all[0] = shape()[first.transposed ? 1 : 0];
    whole = Device::host().empty(all, at::kFloat);
    for (const auto& piece : pieces)
      for_each_run(piece,
                   [&](int64_t begin, const at::Tensor& rows) { whole.narrow(0, begin, rows.size(0)).copy_(rows); });
  } else {
    whole = pieces[0].tensor.reshape(first.shape);
  }
  return (first.transposed ? whole.t() : whole).to(at::kFloat).contiguous();
}

void StoredTensor::split(const at::Tensor& whole) const {
  for (const auto& piece : pieces)
    for_each_run(piece,
                 [&](int64_t begin, const at::Tensor& rows) { rows.copy_(whole.narrow(0, begin, rows.size(0))); });
}

std::vector<StoredTensor> stored_tensors(const std::vector<StoredPiece>& pieces) {
  std::vector<StoredTensor> result;
  std::map<std::string, size_t> places;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto [place, is_new] = places.emplace(pieces[i].spec->tensor, result.size());
    if (is_new) result.push_back({pieces[i].spec->tensor, {}, {}});
    result[place->second].pieces.push_back(pieces[i]);
    result[place->second].indices.push_back(i);
  }
  return result;
}

}  // namespace dsengine
