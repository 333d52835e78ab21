#include "app/shared_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>

#include "base/printable.h"

namespace dsengine {

CLI::Validator count() { return CLI::Range(int64_t{1}, int64_t{INT32_MAX}); }
CLI::Validator count_or_none() { return CLI::Range(int64_t{0}, int64_t{INT32_MAX}); }
CLI::Validator side_by_side() { return CLI::Range(int64_t{1}, int64_t{65536}); }

CLI::Validator whole() {  // CLI11 takes the largest number for one that is larger
  return CLI::Validator(
      [](std::string& text) {
        uint64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool good = error == std::errc() && end == text.data() + text.size();
        return good ? std::string() : fmt::format("'{}' is no whole number from 0 to {}", shown(text), UINT64_MAX);
      },
      "UINT");
}

CLI::Validator real(double least, double most) {  // CLI11's own ranges let nan pass
  return CLI::Validator(
      [=](std::string& text) {
        char* end = nullptr;
        const double value = std::strtod(text.c_str(), &end);
        const bool good = end != text.c_str() && *end == '\0' && value >= least && value <= most;
        return good ? std::string() : fmt::format("'{}' is no number from {} to {}", shown(text), least, most);
      },
      fmt::format("FLOAT in [{} - {}]", least, most));
}

void add_model_option(CLI::App& app, ModelFolder& folder) {
  app.add_option("--model", folder.directory, "Hugging Face directory")->required();
}

void add_base_option(CLI::App& app, const char* flag, std::string& base, const char* of) {
  app.add_option(flag, base, fmt::format("directory of the base of {}; none: the one that it names", of));
}

void add_line_options(CLI::App& app, LineFiles& files) {
  app.add_option("--input", files.input, "JSON lines; -: standard input");
  app.add_option("--output", files.output, "JSON lines; -: standard output");
}

void add_threads_option(CLI::App& app, int64_t& threads) {
  app.add_option("--threads", threads, "0: all cores")->check(count_or_none());
}

void add_device_option(CLI::App& app, std::string& device) {
  app.add_option("--device", device, "cpu; cuda or cuda:1, a graphics card; auto: the first card, else the cpu");
}

void add_computing_options(CLI::App& app, Computing& computing) {
  add_threads_option(app, computing.threads);
  add_device_option(app, computing.device);
  app.add_option("--dtype", computing.dtype,
                 "fp32, or bf16: weights rounded to bfloat16; on a card all is computed in it")
      ->check(CLI::IsMember({"fp32", "bf16"}));
}

void add_sampling_options(CLI::App& app, dse::Sampling& s) {
  app.add_option("--max-new-tokens", s.max_new_tokens)->check(count());
  app.add_option("--temperature", s.temperature, "0: greedy")->check(real(0, 1e6));
  app.add_option("--top-k", s.top_k, "0: all")->check(count_or_none());
  app.add_option("--top-p", s.top_p)->check(real(1e-9, 1));
  app.add_option("--min-p", s.min_p)->check(real(0, 1));
  app.add_option("--repetition-penalty", s.repetition_penalty)->check(real(1e-9, 1e9));
  app.add_option("--seed", s.seed)->check(whole());
}

}  // namespace dsengine
