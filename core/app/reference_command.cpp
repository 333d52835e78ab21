#include <CLI/CLI.hpp>
#include <iostream>

#include "app/command.h"
#include "run/config_print.h"
#include "run/metric_table.h"

namespace dsengine {

Body define_reference(CLI::App& app, Common&) {
  auto metrics = std::make_shared<bool>(false);
  app.add_flag("--metrics", *metrics, "every metric instead, as docs/metrics.md has it");
  return [metrics] {
    std::cout << (*metrics ? metric_reference_markdown() : config_reference_markdown());
    return 0;
  };
}

}  // namespace dsengine
