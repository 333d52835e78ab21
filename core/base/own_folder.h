// Where this code lies: <prefix>/lib of the program's library, or of libdsengine.so in a program that embeds it;
// <prefix>/bin of a program that it is linked into.
// Plugins, templates and the built-in configuration are found from there.
//
//   own_prefix() / "lib/dsengine";
#pragma once
#include <filesystem>

namespace dsengine {

std::filesystem::path own_prefix();

}  // namespace dsengine
