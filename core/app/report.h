// `dsengine report`: what runs have come to, as one page of HTML.
//
//   report_command({"runs/seed1", "runs/seed2"}, "report.html");   // returns the exit status
//   // UserError: one of them is no run's folder, a line is damaged, the page cannot be written
//   // the page appears whole, or the old one stays
#pragma once
#include <filesystem>
#include <vector>

namespace dsengine {

int report_command(const std::vector<std::filesystem::path>& folders, const std::filesystem::path& output);

}  // namespace dsengine
