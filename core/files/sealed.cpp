#include "files/sealed.h"

#include "base/check.h"
#include "base/sha256.h"
#include "files/entries.h"

namespace dsengine {

namespace fs = std::filesystem;

namespace {

constexpr const char* kSeal = "sha256";

std::string text_of(const Json& object) { return object.dump(2) + "\n"; }

}  // namespace

std::string sealed_text(const Json& object) {
  Json sealed = object;
  sealed[kSeal] = sha256_hex(text_of(object));
  return text_of(sealed);
}

Json read_sealed(const fs::path& path) {
  const std::string text = read_text(path);
  Json object = parse_json(text, path.string());
  DSE_CHECK_USER(object.is_object() && object.contains(kSeal),
                 "{} carries no hash of its own: it is not of this version", path.string());
  object.erase(kSeal);
  DSE_CHECK_USER(sealed_text(object) == text, "{} has changed since it was written", path.string());
  return object;
}

Json file_hashes(const fs::path& folder) {
  Json hashes = Json::object();
  for (const auto& entry : entries_of(folder)) {
    if (entry.is_symlink()) continue;
    const std::string name = entry.path().filename().string();
    if (entry.is_directory()) {
      const Json inner = file_hashes(entry.path());
      for (const auto& [file, hash] : inner.items()) hashes[name + "/" + file] = hash;
    } else if (entry.is_regular_file()) {
      hashes[name] = sha256_file(entry.path());
    }
  }
  return hashes;
}

std::optional<std::string> changed_file(const fs::path& folder, const Json& hashes) {
  for (const auto& [name, hash] : hashes.items()) {
    const fs::path file = folder / name;
    if (!fs::is_regular_file(file)) return fmt::format("{} is missing", file.string());
    if (sha256_file(file) != hash) return fmt::format("{} has changed since it was written", file.string());
  }
  return std::nullopt;
}

}  // namespace dsengine
