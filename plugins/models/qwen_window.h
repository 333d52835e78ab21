// The attention window of a Qwen 2 or 3 layer, 0: none. transformers 5 lists each layer's kind; before it, the layers
// from max_window_layers on have the window where use_sliding_window says so.
#pragma once
#include <dsengine/model.hpp>

inline int64_t qwen_window(const dse::Config& c, int64_t layer) {
  if (!c.boolean("use_sliding_window", false) || c.null("sliding_window")) return 0;
  const bool sliding = c.sliding_layer(layer, layer >= c.integer("max_window_layers", 28));
  return sliding ? c.positive("sliding_window", 4096) : 0;
}
