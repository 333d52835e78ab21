// What a weight file says of one tensor: name, element type, shape, and where its bytes lie.
//
//   const TensorEntry* entry = file.find("lm_head.weight");
//   DSE_CHECK_USER(entry->shape == wanted, "lm_head.weight is {}", shape_text(entry->shape));
//   std::vector<float> weights(entry->elements());
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dsengine {

// Named as safetensors names them.
enum class Dtype { F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I64, I32, I16, I8, U64, U32, U16, U8, BOOL };

size_t dtype_bytes(Dtype dtype);
std::string_view dtype_name(Dtype dtype);
std::optional<Dtype> dtype_from_name(std::string_view name);
// F64, F32, F16, BF16: what read_f32 can convert.
bool is_float(Dtype dtype);

// The product of the sizes; nothing where a size is negative or the product passes 2^63-1.
std::optional<uint64_t> element_count(std::span<const int64_t> shape);
// "[2, 3]"
std::string shape_text(std::span<const int64_t> shape);

struct TensorDeclaration {
  std::string name{};
  Dtype dtype = Dtype::F32;
  std::vector<int64_t> shape{};
};

struct TensorEntry {
  std::string name{};
  Dtype dtype = Dtype::F32;
  std::vector<int64_t> shape{};
  // Byte range. In a safetensors file it counts from the end of the header; in a pytorch_model.bin it
  // counts from the start of the tensor's storage, and covers what strides reach.
  uint64_t begin = 0, end = 0;

  // A file reader refuses shapes without a count, so every entry that it gives has one.
  uint64_t elements() const { return element_count(shape).value(); }
  // Elements of one row: the shape without its first size. A scalar is one row of one element.
  uint64_t row_elements() const { return shape.empty() ? 1 : element_count(std::span(shape).subspan(1)).value(); }
};

}  // namespace dsengine
