// What a stage's results rest on besides its settings, by its content: models, records, recorded rollouts.
//
//   Json inputs{{"actor", model_fingerprint("models/tiny")}, {"records", records_fingerprint(data, sources)}};
//   directory.check_inputs(inputs);
//
// Each is {"from": where it lies, "sha256": one hash of it, "files": path -> SHA-256 of the files it was read from}.
#pragma once
#include <filesystem>

#include "base/json.h"
#include "plugin/registry.h"
#include "rl/examples.h"

namespace dsengine {

// What is read of a model's directory: configuration, weights, vocabularies, templates; of an adapter its base's too.
// The directory's place and what else lies in it do not matter.
Json model_fingerprint(const std::filesystem::path& directory);
// The same from the hashes of a directory's files, name -> SHA-256, without reading them.
Json model_fingerprint(const std::filesystem::path& directory, const Json& hashes);
// The same without the weights: of a model that is drawn from the seed, or asked for its tokenizer alone.
Json text_fingerprint(const std::filesystem::path& directory);
// The examples that are made of the sources. Their files are told, but do not count: the same records from other files
// are the same.
Json records_fingerprint(const ExampleSet& set, const std::vector<DataSource>& sources);
// The library that an item of a plugin comes from.
Json plugin_fingerprint(const Item& item);
// All files of a folder.
Json folder_fingerprint(const std::filesystem::path& folder);

}  // namespace dsengine
