#include <CLI/CLI.hpp>
#include <cmath>
#include <iostream>

#include "app/command.h"
#include "app/shared_options.h"
#include "base/check.h"
#include "base/directory.h"

namespace dsengine {

namespace {

namespace fs = std::filesystem;

struct ExportOptions {
  ModelFolder folder;
  std::string output, weights = "final", dtype = "fp32", shard_size = "5GB";
};

// "5GB", "200MB", "1e9": bytes.
uint64_t bytes_of(const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  const std::string unit = end;
  const double factor = unit == "GB" ? 1e9 : unit == "MB" ? 1e6 : unit == "KB" ? 1e3 : unit.empty() ? 1 : 0;
  const double bytes = number * factor;
  DSE_CHECK_USER(end != text.c_str() && std::isfinite(bytes) && bytes >= 1 && bytes < 1e18,
                 "--shard-size: '{}' is no size; write 5GB, 200MB or bytes", text);
  return uint64_t(bytes);
}

// A model, an adapter with its base, or a finished stage's folder, as a Hugging Face folder.
int export_model(const ExportOptions& o, const Common& common) {
  const dse::Engine engine({common.plugin_path});
  fs::path from = o.folder.directory;
  check_directory(from, "--model");
  check_base(o.folder);
  if (fs::exists(from / "done.json")) {
    from /= o.weights == "ema" ? "ema" : "model";
    DSE_CHECK_USER(fs::is_directory(from), "{}: the stage kept no moving average: it ran with ema_decay = 0",
                   o.folder.directory);
  } else {
    DSE_CHECK_USER(o.weights == "final", "--weights {}: {} is no finished stage of a run", o.weights,
                   o.folder.directory);
    DSE_CHECK_USER(!fs::exists(from / "settings.txt"), "{}: the stage has not ended", o.folder.directory);
  }
  DSE_CHECK_USER(!fs::exists(o.output), "--output: {} exists: choose another place", o.output);
  const auto precision = o.dtype == "bf16"   ? dse::Precision::bf16
                         : o.dtype == "fp16" ? dse::Precision::fp16
                                             : dse::Precision::fp32;
  const dse::Saving saving{precision, bytes_of(o.shard_size)};
  engine.load(from, {.base = o.folder.base}).save(o.output, saving);
  std::cout << o.output << "\n";
  return 0;
}

}  // namespace

Body define_export(CLI::App& app, Common& common) {
  auto o = std::make_shared<ExportOptions>();
  app.add_option("--model", o->folder.directory, "directory of a model, an adapter, or a finished stage")->required();
  add_base_option(app, "--base", o->folder.base, "an adapter");
  app.add_option("--output", o->output, "the new directory")->required();
  app.add_option("--weights", o->weights, "of a stage: final, or the moving average")
      ->check(CLI::IsMember({"final", "ema"}));
  app.add_option("--dtype", o->dtype)->check(CLI::IsMember({"fp32", "fp16", "bf16"}));
  app.add_option("--shard-size", o->shard_size, "largest file, such as 5GB");
  return [o, &common] { return export_model(*o, common); };
}

}  // namespace dsengine
