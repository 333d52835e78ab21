#include "app/report.h"

#include <iostream>

#include "app/report_page.h"
#include "base/check.h"
#include "files/atomic_directory.h"

namespace dsengine {

int report_command(const std::vector<std::filesystem::path>& folders, const std::filesystem::path& output) {
  std::vector<ReportRun> runs;
  for (const auto& folder : folders) runs.push_back(read_run(folder));
  DSE_CHECK_USER(!std::filesystem::is_directory(output), "--output {} is a folder: name a file", output.string());
  atomic_write_file(output, report_page(runs));
  std::cout << output.string() << "\n";
  return 0;
}

}  // namespace dsengine
