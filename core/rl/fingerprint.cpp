#include "rl/fingerprint.h"

#include <algorithm>
#include <set>

#include "base/check.h"
#include "base/sha256.h"
#include "files/entries.h"
#include "files/hf_directory.h"
#include "files/sealed.h"

namespace dsengine {

namespace fs = std::filesystem;

namespace {

Json fingerprint_of(const fs::path& from, const Json& files) {
  std::string lines;
  for (const auto& [name, hash] : files.items()) lines += name + " " + hash.get<std::string>() + "\n";
  return {{"from", from.string()}, {"sha256", sha256_hex(lines)}, {"files", files}};
}

// Those of a directory's files that are read. Weights are read from .safetensors, and from .bin where there are none.
std::set<std::string> files_read(const std::set<std::string>& names, bool weights) {
  const auto ending = [](const std::string& name) { return fs::path(name).extension().string(); };
  std::set<std::string> endings{".json", ".jinja", ".txt", ".model"}, result;
  if (weights)
    endings.insert(std::ranges::any_of(names, [&](const auto& name) { return ending(name) == ".safetensors"; })
                       ? ".safetensors"
                       : ".bin");
  for (const auto& name : names)
    if (name.find('/') == name.npos && endings.contains(ending(name))) result.insert(name);
  return result;
}

void add_files(const fs::path& directory, bool weights, const std::string& prefix, Json& to) {
  std::set<std::string> names;
  for (const auto& entry : entries_of(directory))
    if (entry.is_regular_file()) names.insert(entry.path().filename().string());
  for (const auto& name : files_read(names, weights)) to[prefix + name] = sha256_file(directory / name);
}

Json directory_fingerprint(const fs::path& directory, bool weights) {
  Json files = Json::object();
  add_files(directory, weights, "", files);
  if (is_adapter(directory)) add_files(base_directory(directory), weights, "base/", files);
  return fingerprint_of(directory, files);
}

// Feeds a hash with values whose ends are told apart.
class Feed {
 public:
  void bytes(const void* data, size_t size) {
    const uint64_t length = size;
    hash_.update({reinterpret_cast<const char*>(&length), sizeof length});
    hash_.update({static_cast<const char*>(data), size});
  }
  void text(const std::string& text) { bytes(text.data(), text.size()); }
  template <class T>
  void list(const std::vector<T>& values) {
    bytes(values.data(), values.size() * sizeof(T));
  }
  void number(double value) { bytes(&value, sizeof value); }
  std::string hex() { return hash_.hex(); }

 private:
  Sha256 hash_;
};

}  // namespace

Json model_fingerprint(const fs::path& directory) { return directory_fingerprint(directory, true); }
Json text_fingerprint(const fs::path& directory) { return directory_fingerprint(directory, false); }

Json model_fingerprint(const fs::path& directory, const Json& hashes) {
  std::set<std::string> names;
  for (const auto& [name, _] : hashes.items()) names.insert(name);
  Json files = Json::object();
  for (const auto& name : files_read(names, true)) files[name] = hashes[name];
  return fingerprint_of(directory, files);
}

Json plugin_fingerprint(const Item& item) { return {{"from", item.file.string()}, {"sha256", item.sha256}}; }

Json folder_fingerprint(const fs::path& folder) { return fingerprint_of(folder, file_hashes(folder)); }

Json records_fingerprint(const ExampleSet& set, const std::vector<DataSource>& sources) {
  Feed feed;
  for (size_t i = 0; i < set.size(); ++i) {
    const Example& e = set[i];
    feed.list(e.prompt);
    for (const auto* answer : {&e.answer, &e.rejected}) feed.list(answer->tokens), feed.list(answer->mask);
    feed.number(e.weight), feed.number(set.copies(i));
    feed.text(e.prompt_text), feed.text(e.metadata);
    for (const auto& turn : e.turns) feed.text(turn.role), feed.text(turn.content), feed.number(turn.train);
  }
  Json files = Json::object();
  std::string from;
  for (const auto& source : sources) {
    from += (from.empty() ? "" : ", ") + source.path.string();
    if (fs::is_regular_file(source.path)) files[source.path.string()] = sha256_file(source.path);
  }
  return {{"from", from}, {"sha256", feed.hex()}, {"files", files}};
}

}  // namespace dsengine
