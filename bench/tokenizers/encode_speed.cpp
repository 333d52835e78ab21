// Encodes the lines of a text again and again on one thread, and prints the megabytes a second of each round.
//
//   encode_speed TOKENIZER_DIRECTORY TEXT     # each line read from standard input runs one round: "12.3 456789"
#include <chrono>
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>

#include "base/json.h"
#include "text/tokenizer.h"

int main(int argc, char** argv) try {
  if (argc != 3) {
    std::fputs("usage: encode_speed TOKENIZER_DIRECTORY TEXT\n", stderr);
    return 2;
  }
  const std::string text = dsengine::read_text(argv[2]);
  const auto tokenizer = dsengine::Tokenizer::from_directory(argv[1]);
  for (std::string word; std::getline(std::cin, word);) {
    const auto start = std::chrono::steady_clock::now();
    size_t tokens = 0;
    for (size_t at = 0; at < text.size();) {
      size_t end = text.find('\n', at);
      if (end == std::string::npos) end = text.size() - 1;
      tokens += tokenizer.encode(std::string_view(text).substr(at, end + 1 - at)).size();
      at = end + 1;
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf("%.3f %zu\n", double(text.size()) / 1e6 / seconds.count(), tokens);
    std::fflush(stdout);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "encode_speed: %s\n", error.what());
  return 1;
}
