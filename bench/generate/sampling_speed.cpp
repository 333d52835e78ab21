// Microseconds of drawing one token from a vocabulary, by the sampler's settings, and of asking about a stop, by the
// length of the answer so far. One JSON line each; the best of the rounds, which alternate between the settings.
//
//   sampling_speed TOKENIZER_DIRECTORY [VOCABULARY=131072] [ROUNDS=15]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "base/philox.h"
#include "generate/sampler.h"
#include "text/stops.h"

namespace {

using namespace dsengine;

double seconds_of(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Normal logits (Box and Muller 1958) of that deviation: 0 is a flat distribution, 4 about a trained model's, 80 that
// at a temperature of 0.05.
std::vector<float> logits_of(size_t vocabulary, double deviation) {
  const Philox draws(7, Purpose::sample, 0, 0);
  std::vector<float> logits(vocabulary);
  for (size_t i = 0; i < vocabulary; ++i) {
    const double u = draws.uniform(2 * i), v = draws.uniform(2 * i + 1);
    logits[i] = float(deviation * std::sqrt(-2 * std::log(1 - u)) * std::cos(6.283185307179586 * v));
  }
  return logits;
}

void time_sampler(size_t vocabulary, double deviation, int rounds) {
  const std::vector<std::pair<const char*, SamplingOptions>> settings{
      {"plain", {}},
      {"top_k 50", {.top_k = 50}},
      {"top_k 20000", {.top_k = 20000}},
      {"top_p 0.9", {.top_p = 0.9}},
      {"top_p 0.9999", {.top_p = 0.9999}},
      {"top_k 50, top_p 0.9", {.top_k = 50, .top_p = 0.9}},
      {"min_p 0.05", {.min_p = 0.05}},
  };
  const auto logits = logits_of(vocabulary, deviation);
  std::vector<double> best(settings.size(), HUGE_VAL);
  int64_t sink = 0;
  constexpr int draws = 20;
  for (int round = 0; round < rounds; ++round)
    for (size_t s = 0; s < settings.size(); ++s)
      best[s] = std::min(best[s], seconds_of([&] {
                                    for (int i = 0; i < draws; ++i)
                                      sink += sample(logits, settings[s].second, (i + 0.5) / draws);
                                  }) / draws);
  for (size_t s = 0; s < settings.size(); ++s)
    std::printf(
        "{\"what\": \"draw\", \"vocabulary\": %zu, \"deviation\": %g, \"setting\": \"%s\", \"microseconds\": %.1f, "
        "\"of_plain\": %.2f}\n",
        vocabulary, deviation, settings[s].first, best[s] * 1e6, best[s] / best[0]);
  if (sink == -1) std::puts("");
}

void time_stops(const char* directory, int rounds) {
  const auto tokenizer = Tokenizer::from_directory(directory);
  const Stops stops(tokenizer, {"\n\nHuman:", "###"}, {});
  const auto text = tokenizer.encode("The answer goes on, word after word, and holds no stop at all.\n", false);
  for (const size_t length : {256, 4096, 65536}) {
    double best = HUGE_VAL;
    for (int round = 0; round < rounds; ++round) {
      StopMatcher matcher(stops);
      for (size_t i = 0; i < length; ++i) matcher.push(text[i % text.size()]);
      constexpr size_t more = 1024;
      best = std::min(best, seconds_of([&] {
                              for (size_t i = 0; i < more; ++i) matcher.push(text[i % text.size()]);
                            }) / more);
    }
    std::printf("{\"what\": \"stop strings\", \"tokens_before\": %zu, \"microseconds\": %.2f}\n", length, best * 1e6);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2 || argc > 4) {
    std::fputs("usage: sampling_speed TOKENIZER_DIRECTORY [VOCABULARY] [ROUNDS]\n", stderr);
    return 2;
  }
  const size_t vocabulary = argc > 2 ? std::stoul(argv[2]) : 131072;
  const int rounds = argc > 3 ? std::stoi(argv[3]) : 15;
  for (const double deviation : {0.0, 1.0, 4.0, 80.0}) time_sampler(vocabulary, deviation, rounds);
  time_stops(argv[1], rounds);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "sampling_speed: %s\n", error.what());
  return 1;
}
