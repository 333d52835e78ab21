// The threads that plugins' loops run on are the engine's.
//
//   lend_threads_to_plugins();      // once, before the first plugin computes
#pragma once

namespace dsengine {

// host->parallel_for of the plugin ABI runs on LibTorch's team from here on.
void lend_threads_to_plugins();

}  // namespace dsengine
