#include "param/placement.h"

#include <fmt/format.h>

#include "base/check.h"

namespace dsengine {

std::string place_of(const ParamSpec& spec) {
  return spec.first_row < 0 ? spec.tensor : fmt::format("{}@{}", spec.tensor, spec.first_row);
}

namespace {

// f(parameter, its elements as ParamLayout::part_of has them)
template <class F>
void for_each_part(const ParamStorage& storage, const at::Tensor& trained_span, const F& f) {
  const ParamLayout& layout = storage.layout();
  DSE_CHECK(trained_span.dim() == 1 && trained_span.numel() == storage.trained_numel(), "a span of unit {}",
            layout.name());
  for (size_t b = 0; b < layout.blocks().size(); ++b)
    for (size_t p = 0; storage.trained(b) && p < layout.blocks()[b].parts.size(); ++p)
      f(layout.blocks()[b].parts[p], layout.part_of(trained_span, b, p, storage.trained_begin()));
}

}  // namespace

void read_placed(const ParamStorage& storage, const at::Tensor& trained_span, const PlacedRows& f) {
  for_each_part(storage, trained_span,
                [&](const ParamSpec& spec, const at::Tensor& part) { read_rows(part, spec.shape, place_of(spec), f); });
}

void write_placed(const ParamStorage& storage, const at::Tensor& trained_span, const PlacedRows& f) {
  for_each_part(storage, trained_span, [&](const ParamSpec& spec, const at::Tensor& part) {
    write_rows(part, spec.shape, place_of(spec), f);
  });
}

void read_rows(const at::Tensor& part, at::IntArrayRef shape, const std::string& name, const PlacedRows& f) {
  f(name, part.reshape(shape));
}

void write_rows(const at::Tensor& part, at::IntArrayRef shape, const std::string& name, const PlacedRows& f) {
  const at::Tensor rows = part.reshape(shape);
  f(name, rows);
  if (!rows.is_alias_of(part)) part.copy_(rows.view(part.sizes()));
}

}  // namespace dsengine
