// Options that several commands take, and what numbers may be.
//
//   add_model_option(app, options.folder);                    // --model, which must be given
//   add_sampling_options(app, options.sampling);              // --max-new-tokens … --seed
//   app.add_option("--rows", options.rows)->check(count());   // an error line names the range
#pragma once
#include <cstdint>
#include <string>

#include "app/model_folder.h"
#include "engine/engine.h"

namespace CLI {
class App;
class Validator;
}

namespace dsengine {

// Whole numbers up to which sums and products of counts stay within 64 bits.
CLI::Validator count();          // from 1
CLI::Validator count_or_none();  // from 0
CLI::Validator side_by_side();   // of what is in memory at once: from 1 to 65536
// Any whole number without sign that 64 bits hold.
CLI::Validator whole();
// A number from `least` to `most`; no NaN.
CLI::Validator real(double least, double most);

struct LineFiles {
  std::string input = "-", output = "-";
};

struct Computing {
  int64_t threads = 0;  // 0: all cores
  std::string device = "cpu";
  std::string dtype = "fp32";
};

void add_model_option(CLI::App& app, ModelFolder& folder);
// of: whose base it is, such as "an adapter".
void add_base_option(CLI::App& app, const char* flag, std::string& base, const char* of);
void add_line_options(CLI::App& app, LineFiles& files);
void add_threads_option(CLI::App& app, int64_t& threads);
void add_device_option(CLI::App& app, std::string& device);
void add_computing_options(CLI::App& app, Computing& computing);  // --threads, --device, --dtype
// How one answer is drawn; how many, and what ends them, is generate's own.
void add_sampling_options(CLI::App& app, dse::Sampling& sampling);

}  // namespace dsengine
