// pytorch_model.bin: the zip archive, the pickle in it, and the tensors of a file that passes.
#include "files/torch_file.h"

#include <algorithm>

#include "files/numbers.h"
#include "fuzz.h"

using namespace dsengine;

FUZZ(text) {
  const InputFile input(text);
  const TorchFile file(input.path());
  for (const TensorEntry& entry : file.entries()) {
    if (!is_float(entry.dtype)) continue;
    std::vector<float> values(std::min<uint64_t>(entry.elements(), 4096));
    file.read_f32(entry, 0, values);
    if (entry.elements() > values.size()) file.read_f32(entry, entry.elements() - values.size(), values);
  }
}
