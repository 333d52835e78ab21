// The pickle of a state dict by itself: within a zip archive a changed byte seldom gets as far.
#include "files/pickle.h"

#include <span>

#include "fuzz.h"

using namespace dsengine;

FUZZ(text) {
  for (const PickledTensor& tensor : parse_tensor_pickle(std::as_bytes(std::span(text)), "input")) {
    if (!tensor.end() || *tensor.end() > tensor.storage_elements) std::abort();
  }
}
