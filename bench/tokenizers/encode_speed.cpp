// Encodes a text again and again on one thread, and prints each round's megabytes a second of processor time
// and number of tokens.
//
//   encode_speed TOKENIZER_DIRECTORY TEXT lines|whole    # each line read from standard input runs one round
#include <cstdio>
#include <ctime>
#include <exception>
#include <iostream>
#include <string>

#include "base/json.h"
#include "text/tokenizer.h"

int main(int argc, char** argv) try {
  if (argc != 4) {
    std::fputs("usage: encode_speed TOKENIZER_DIRECTORY TEXT lines|whole\n", stderr);
    return 2;
  }
  const std::string text = dsengine::read_text(argv[2]);
  const bool lines = argv[3] == std::string_view("lines");
  const auto tokenizer = dsengine::Tokenizer::from_directory(argv[1]);
  for (std::string word; std::getline(std::cin, word);) {
    const std::clock_t start = std::clock();
    size_t tokens = 0;
    for (size_t at = 0; at < text.size();) {
      size_t end = lines ? text.find('\n', at) : std::string::npos;
      if (end == std::string::npos) end = text.size() - 1;
      tokens += tokenizer.encode(std::string_view(text).substr(at, end + 1 - at)).size();
      at = end + 1;
    }
    const double seconds = double(std::clock() - start) / CLOCKS_PER_SEC;
    std::printf("%.3f %zu\n", double(text.size()) / 1e6 / seconds, tokens);
    std::fflush(stdout);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "encode_speed: %s\n", error.what());
  return 1;
}
