#include "files/numbers.h"

#include <cstring>

#include "base/check.h"

namespace dsengine {
namespace {

static_assert(std::endian::native == std::endian::little, "weight files are little-endian, and read as they lie");

template <class Stored, class Convert>
void widen(std::span<const std::byte> bytes, std::span<float> out, Convert convert) {
  for (size_t i = 0; i < out.size(); ++i) {
    Stored stored;
    std::memcpy(&stored, bytes.data() + i * sizeof stored, sizeof stored);
    out[i] = convert(stored);
  }
}

template <class Convert>
void narrow(std::span<const float> values, std::span<std::byte> out, Convert convert) {
  for (size_t i = 0; i < values.size(); ++i) {
    const auto stored = convert(values[i]);
    std::memcpy(out.data() + i * sizeof stored, &stored, sizeof stored);
  }
}

}  // namespace

void to_f32(Dtype dtype, std::span<const std::byte> bytes, std::span<float> out) {
  DSE_CHECK(bytes.size() == out.size() * dtype_bytes(dtype), "{} bytes for {} elements", bytes.size(), out.size());
  if (out.empty()) return;
  switch (dtype) {
    case Dtype::F32:
      std::memcpy(out.data(), bytes.data(), bytes.size());
      return;
    case Dtype::F64:
      return widen<double>(bytes, out, [](double x) { return static_cast<float>(x); });
    case Dtype::F16:
      return widen<uint16_t>(bytes, out, f16_to_float);
    case Dtype::BF16:
      return widen<uint16_t>(bytes, out, bf16_to_float);
    default:
      DSE_CHECK(false, "{} has no conversion to float", dtype_name(dtype));
  }
}

void from_f32(Dtype dtype, std::span<const float> values, std::span<std::byte> out) {
  DSE_CHECK(out.size() == values.size() * dtype_bytes(dtype), "{} bytes for {} elements", out.size(), values.size());
  if (out.empty()) return;
  switch (dtype) {
    case Dtype::F32:
      std::memcpy(out.data(), values.data(), out.size());
      return;
    case Dtype::F64:
      return narrow(values, out, [](float x) { return static_cast<double>(x); });
    case Dtype::F16:
      return narrow(values, out, float_to_f16);
    case Dtype::BF16:
      return narrow(values, out, float_to_bf16);
    default:
      DSE_CHECK(false, "{} has no conversion from float", dtype_name(dtype));
  }
}

}  // namespace dsengine
