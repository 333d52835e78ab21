// Where this code lies: <prefix>/bin of the program, or <prefix>/lib of libdsengine.so in a program that embeds it.
// Plugins, templates and the built-in configuration are found from there.
//
//   own_prefix() / "lib/dsengine";
#pragma once
#include <filesystem>

namespace dsengine {

std::filesystem::path own_prefix();

}  // namespace dsengine
