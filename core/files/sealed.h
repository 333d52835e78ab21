// Files that tell when they have been changed: a JSON file that carries its own SHA-256, and the hashes of a folder's
// files, to be kept in one.
//
//   Json manifest{{"step", 7}, {"files", file_hashes(folder)}};
//   write_text(folder / "manifest.json", sealed_text(manifest));
//   Json again = read_sealed(folder / "manifest.json");             // UserError where a byte of it is another
//   if (const auto what = changed_file(folder, again["files"])) warn("{}", *what);
#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "base/json.h"

namespace dsengine {

// `object` with a last member "sha256", the hash of the text without it.
std::string sealed_text(const Json& object);
// The object without the seal. UserError where the file cannot be read, is no sealed object, or differs by a byte from
// what sealed_text() made.
Json read_sealed(const std::filesystem::path& path);

// Every regular file of a folder and its subfolders: relative path -> SHA-256. Links are not followed.
Json file_hashes(const std::filesystem::path& folder);
// The first of `hashes` that is missing or another now: "<path> has changed since it was written" (or is missing).
std::optional<std::string> changed_file(const std::filesystem::path& folder, const Json& hashes);

}  // namespace dsengine
