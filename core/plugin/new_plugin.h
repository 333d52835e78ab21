// `dsengine plugins new`: a folder with a plugin that builds and passes its test, to begin from.
//
//   write_new_plugin("my_algorithm", "algorithm", "my_algorithm", templates_folder());
//
// From the SDK's templates: source, CMakeLists.txt (find_package(dsengine) and a test that runs `plugins verify`),
// README.
#pragma once
#include <filesystem>
#include <string>

namespace dsengine {

// <prefix>/share/dsengine/templates.
std::filesystem::path templates_folder();

// UserError where the name is no identifier in snake_case, the kind is unknown, or the folder is there already.
void write_new_plugin(const std::string& name, const std::string& kind, const std::filesystem::path& folder,
                      const std::filesystem::path& templates);

}  // namespace dsengine
