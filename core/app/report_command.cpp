#include <CLI/CLI.hpp>
#include <iostream>

#include "app/command.h"
#include "app/json_keys.h"
#include "app/report_page.h"
#include "app/report_run.h"
#include "base/check.h"
#include "files/atomic_directory.h"

namespace dsengine {

namespace {

struct ReportOptions {
  std::vector<std::filesystem::path> folders;
  std::filesystem::path output = "report.html";
};

int report(const ReportOptions& o) {
  std::vector<ReportRun> runs;
  for (const auto& folder : o.folders) runs.push_back(read_run(folder));
  DSE_CHECK_USER(!std::filesystem::is_directory(o.output), "--output {} is a folder: name a file", o.output.string());
  atomic_write_file(o.output, report_page(runs));
  std::cout << o.output.string() << "\n";
  return 0;
}

}  // namespace

Body define_report(CLI::App& app, Common&) {
  auto o = std::make_shared<ReportOptions>();
  app.add_option("folders", o->folders, "the runs' output_dir")->required();
  app.add_option("--output", o->output, "the page; none: report.html");
  app.footer(kReportKeys);
  return [o] { return report(*o); };
}

}  // namespace dsengine
