#include "files/tensor_entry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>

#include "base/check.h"

namespace dsengine {
namespace {

struct DtypeFacts {
  Dtype dtype;
  std::string_view name;
  size_t bytes;
};

constexpr std::array kDtypes{
    DtypeFacts{Dtype::F64, "F64", 8},         DtypeFacts{Dtype::F32, "F32", 4},
    DtypeFacts{Dtype::F16, "F16", 2},         DtypeFacts{Dtype::BF16, "BF16", 2},
    DtypeFacts{Dtype::F8_E4M3, "F8_E4M3", 1}, DtypeFacts{Dtype::F8_E5M2, "F8_E5M2", 1},
    DtypeFacts{Dtype::I64, "I64", 8},         DtypeFacts{Dtype::I32, "I32", 4},
    DtypeFacts{Dtype::I16, "I16", 2},         DtypeFacts{Dtype::I8, "I8", 1},
    DtypeFacts{Dtype::U64, "U64", 8},         DtypeFacts{Dtype::U32, "U32", 4},
    DtypeFacts{Dtype::U16, "U16", 2},         DtypeFacts{Dtype::U8, "U8", 1},
    DtypeFacts{Dtype::BOOL, "BOOL", 1},
};

const DtypeFacts& facts_of(Dtype dtype) {
  const auto& facts = kDtypes.at(static_cast<size_t>(dtype));
  DSE_CHECK(facts.dtype == dtype, "the table is not in the order of the enumeration");
  return facts;
}

}  // namespace

size_t dtype_bytes(Dtype dtype) { return facts_of(dtype).bytes; }
std::string_view dtype_name(Dtype dtype) { return facts_of(dtype).name; }

std::optional<Dtype> dtype_from_name(std::string_view name) {
  for (const auto& facts : kDtypes) {
    if (facts.name == name) return facts.dtype;
  }
  return std::nullopt;
}

bool is_float(Dtype dtype) {
  return dtype == Dtype::F64 || dtype == Dtype::F32 || dtype == Dtype::F16 || dtype == Dtype::BF16;
}

std::optional<uint64_t> element_count(std::span<const int64_t> shape) {
  int64_t count = 1;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) return std::nullopt;
  }
  return static_cast<uint64_t>(count);
}

std::string shape_text(std::span<const int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

}  // namespace dsengine
