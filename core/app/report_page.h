// The page of a report: one HTML file with all it needs in it, which loads and runs nothing.
//
//   const std::string html = report_page({read_run("runs/seed1"), read_run("runs/seed2")});
//   atomic_write_file("report.html", html);
//   // file://…/report.html
#pragma once
#include <string>
#include <vector>

#include "app/report_run.h"

namespace dsengine {

std::string report_page(const std::vector<ReportRun>& runs);

}  // namespace dsengine
