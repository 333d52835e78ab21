// Tensors kept in 4 bits, as bitsandbytes names their parts and transformers saves them. X holds the codes, two in a
// byte, the first in the high half; beside it stand
//
//   X.quant_map                             the 16 values that codes stand for
//   X.absmax                                a scale for each block of elements, counted on from row to row
//   X.nested_absmax, X.nested_quant_map     where the scales are codes themselves, of 8 bits
//   X.quant_state.bitsandbytes__nf4         JSON: the shape, the blocks' sizes; or …__fp4
//
// Each is shown as the one tensor X in F32, with the values that bitsandbytes has for it in float32.
//
//   FourBitSource source(places, "model.safetensors");
//   source.read_f32(source.entries()[0], 0, floats);
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "files/weight_source.h"

namespace dsengine {

class FourBitSource : public WeightSource {
 public:
  // Those among `places`, whose sources outlive this object; each is checked whole. `where` names the file or the
  // directory in a UserError.
  FourBitSource(const TensorPlaces& places, const std::string& where);

  // The names of what stands beside the entries in `places`.
  const std::set<std::string>& parts() const { return parts_; }
  void read_f32(const TensorEntry& entry, uint64_t first, std::span<float> out) const override;

 private:
  // The sizes of its spans are those that its shape asks for.
  struct Tensor {
    std::span<const std::byte> codes{};
    std::array<float, 16> values{};
    uint64_t block = 0;                          // elements; even
    std::span<const std::byte> scales{};         // of each block: F32, or U8 where nested_block is not 0
    uint64_t nested_block = 0;                   // scales
    std::vector<float> nested_values{};          // 256
    std::span<const std::byte> nested_scales{};  // F32
    float nested_offset = 0;

    float scale_of(uint64_t index) const;
  };
  class Reader;

  std::vector<Tensor> tensors_;  // of entries()
  std::set<std::string> parts_;
};

}  // namespace dsengine
