#include "param/placement.h"

#include <fmt/format.h>

#include "base/check.h"

namespace dsengine {

std::string place_of(const ParamSpec& spec) {
  return spec.first_row < 0 ? spec.tensor : fmt::format("{}@{}", spec.tensor, spec.first_row);
}

void for_each_placed(const ParamStorage& storage, const at::Tensor& trained_span,
                     const std::function<void(const std::string& place, const at::Tensor& rows)>& f) {
  const ParamLayout& layout = storage.layout();
  DSE_CHECK(trained_span.sizes() == storage.grad().sizes(), "a span of unit {}", layout.name());
  for (size_t b = 0; b < layout.blocks().size(); ++b)
    for (size_t p = 0; storage.trained(b) && p < layout.blocks()[b].parts.size(); ++p)
      f(place_of(layout.blocks()[b].parts[p]), layout.part_of(trained_span, b, p, storage.trained_begin()));
}

}  // namespace dsengine
