// The files of a tokenizer and chat template that go along when a model is saved: those that were read and are what
// their names say. A model's directory comes from elsewhere and may hold links, so that a file's bytes are nothing to
// pass on unseen.
//
//   for (const auto& file : tokenizer_files("models/llama", left_out)) write_text(to / file.name, file.text);
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace dsengine {

struct TokenizerFile {
  std::filesystem::path name;  // relative to the directory
  std::string text;
};

// `left_out` takes a line for each file that is not what its name says.
std::vector<TokenizerFile> tokenizer_files(const std::filesystem::path& directory, std::vector<std::string>& left_out);
// Writes them to another directory, which is there; a warning for each that is left out.
void copy_tokenizer_files(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace dsengine
