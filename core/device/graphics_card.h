// The graphics card that NVIDIA's driver tells of, whether or not this program can compute on it.
//
//   if (const auto card = first_graphics_card()) card->name;          // "NVIDIA H200"
//
// Asked of the driver's own library (NVML, libnvidia-ml.so.1), which is opened for the call and is not needed to run.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace dsengine {

struct GraphicsCard {
  std::string name;
  int64_t bytes = 0;  // of its memory
};

// None: there is no driver, or no card. The first that it counts.
std::optional<GraphicsCard> first_graphics_card();

}  // namespace dsengine
