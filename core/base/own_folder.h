// What was installed with this code, found from where it lies: in a library (the program's, or libdsengine.so in a
// program that embeds it), or in a program that it is linked into.
//
//   plugins_beside_code();                       // <prefix>/lib/dsengine, or lib/<triplet>/dsengine
//   shared_files() / "examples/rlhf_tiny.toml";  // <prefix>/share/dsengine
#pragma once
#include <filesystem>

namespace dsengine {

// The engine's own plugins, and the programs that it starts.
std::filesystem::path plugins_beside_code();
// Templates and examples: share/dsengine of the first folder above the code's that has it.
std::filesystem::path shared_files();

}  // namespace dsengine
