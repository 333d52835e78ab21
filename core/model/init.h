// The weights that a model begins with where it learns from nothing.
//
//   Model model(graph, config, ModelKind::language, kernels, at::kFloat);
//   draw_weights(model, 0.02, seed);               // Init::normal: N(0, 0.02²); else zeros or ones
#pragma once
#include "model/model.h"

namespace dsengine {

// quick: by LibTorch's generator, where the weights lie: other numbers on every device.
// Every parameter as its Init says; an adapter's are its own (Adapter::initialize). A draw is a function of the seed,
// the parameter's name and the element's index in [out, in]: neither the order of parameters nor how they lie changes
// it.
void draw_weights(Model& model, double deviation, uint64_t seed, bool quick = false);

}  // namespace dsengine
