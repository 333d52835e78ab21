// A safetensors file: its header, and the tensors of a file that passes.
#include "files/safetensors.h"

#include <algorithm>

#include "files/numbers.h"
#include "fuzz.h"

using namespace dsengine;

FUZZ(text) {
  const InputFile input(text);
  const SafetensorsFile file(input.path());
  uint64_t bytes = 0;
  for (const TensorEntry& entry : file.entries()) {
    bytes += file.bytes(entry).size();
    if (!is_float(entry.dtype)) continue;
    std::vector<float> values(std::min<uint64_t>(entry.elements(), 4096));
    file.read_f32(entry, 0, values);
  }
  if (bytes > text.size()) std::abort();  // no two tensors share bytes
}
