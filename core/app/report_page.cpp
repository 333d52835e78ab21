#include "app/report_page.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <ctime>
#include <limits>
#include <set>

#include "app/report_chart.h"
#include "app/report_html.h"
#include "app/report_style.h"
#include "app/report_tables.h"
#include "run/metric_table.h"

namespace dsengine {

namespace {

struct MetricNames {
  std::vector<std::string> main, more;
};

// The metrics of a stage in any of the runs. What an algorithm reports of itself counts as main.
MetricNames metrics_of(const std::vector<StageOfRun>& runs) {
  MetricNames names;
  std::vector<std::string> present;
  std::set<std::string> seen;
  for (const StageOfRun& run : runs)
    for (const auto* curves : {&run.stage->training, &run.stage->evaluation})
      for (const Curve& curve : *curves)
        if (curve.name != "wall_time" && seen.insert(curve.name).second) present.push_back(curve.name);
  const auto is_error_bar = [&](const std::string& name) {
    constexpr std::string_view ending = "_standard_error";
    return name.ends_with(ending) && seen.count(name.substr(0, name.size() - ending.size()));
  };
  for (const MetricRow& row : metric_rows())
    if (seen.count(std::string(row.name)) && !is_error_bar(std::string(row.name)))
      (row.main ? names.main : names.more).emplace_back(row.name);
  for (const std::string& name : present)
    if (!find_metric(name) && !is_error_bar(name)) names.main.push_back(name);
  return names;
}

Chart chart_of(const std::string& name, const std::vector<StageOfRun>& runs) {
  const MetricRow* row = find_metric(name);
  Chart chart{name, row ? std::string(row->unit) : "", {}};
  for (const StageOfRun& run : runs) {
    ChartRun line{run.label, run.colour, {}, {}};
    if (const Curve* training = find_curve(run.stage->training, name)) line.training = training->points;
    const Curve* errors = find_curve(run.stage->evaluation, name + "_standard_error");
    if (const Curve* heldout = find_curve(run.stage->evaluation, name))
      for (const CurvePoint& p : heldout->points) {
        HeldOutPoint point{p.step, p.value, std::numeric_limits<double>::quiet_NaN()};
        if (errors)
          for (const CurvePoint& e : errors->points)
            if (e.step == p.step) point.standard_error = e.value;
        line.heldout.push_back(point);
      }
    chart.runs.push_back(std::move(line));
  }
  return chart;
}

std::string charts_of(const std::vector<std::string>& names, const std::vector<StageOfRun>& runs) {
  std::string out = "<div class=\"charts\">";
  for (const std::string& name : names) {
    const MetricRow* row = find_metric(name);
    out += fmt::format("<figure data-metric=\"{0}\"><figcaption title=\"{1}\">{0}</figcaption>{2}</figure>",
                       html_text(name), row ? html_text(row->meaning) : "reported by the algorithm",
                       draw_chart(chart_of(name, runs)));
  }
  return out + "</div>";
}

std::string stage_section(size_t index, const std::string& name, const std::vector<StageOfRun>& runs) {
  std::string legend;
  for (const StageOfRun& run : runs) legend += run_tag(run.label, run.colour);
  std::string out = fmt::format("<section id=\"stage-{}\"><h2>{}", index, html_text(name));
  if (const std::string& algorithm = runs.front().stage->algorithm; !algorithm.empty() && algorithm != name)
    out += fmt::format(" <small>{}</small>", html_text(algorithm));
  out += fmt::format(
      "</h2><p class=\"legend\">{}<span class=\"muted\">thin: each step · thick: smoothed · points: held out, bars of "
      "one standard error</span></p>",
      legend);
  const MetricNames names = metrics_of(runs);
  out += charts_of(names.main, runs);
  if (!names.more.empty())
    out += "<details><summary>More curves</summary>" + charts_of(names.more, runs) + "</details>";
  if (const std::string bars = phase_bars(runs); !bars.empty()) out += "<h3>Where a step's time goes</h3>" + bars;
  if (!names.main.empty()) out += "<h3>Numbers at the end</h3>" + number_table(names.main, runs);
  std::string samples;
  for (const StageOfRun& run : runs)
    if (const std::string cards = sample_cards(run); !cards.empty())
      samples += fmt::format("<details{}><summary>{}</summary>{}</details>", samples.empty() ? " open" : "",
                             run_tag(run.label, run.colour), cards);
  if (!samples.empty()) out += "<h3>Answers to held-out prompts, first and last evaluation</h3>" + samples;
  return out + "</section>";
}

// Folder names where they tell the runs apart, else whole paths.
std::vector<std::string> labels_of(const std::vector<ReportRun>& runs) {
  std::set<std::string> different;
  for (const ReportRun& run : runs) different.insert(run.label);
  std::vector<std::string> labels;
  for (const ReportRun& run : runs) labels.push_back(different.size() == runs.size() ? run.label : run.folder.string());
  return labels;
}

// Of all runs, each where the first run that has it has it.
std::vector<std::string> stage_names(const std::vector<ReportRun>& runs) {
  std::vector<std::string> names;
  for (const ReportRun& run : runs)
    for (const ReportStage& stage : run.stages)
      if (std::find(names.begin(), names.end(), stage.name) == names.end()) names.push_back(stage.name);
  return names;
}

}  // namespace

std::string report_page(const std::vector<ReportRun>& runs) {
  const std::vector<std::string> labels = labels_of(runs), names = stage_names(runs);
  std::string links, sections, configs;
  for (size_t s = 0; s < names.size(); ++s) {
    std::vector<StageOfRun> present;
    for (size_t r = 0; r < runs.size(); ++r)
      for (const ReportStage& stage : runs[r].stages)
        if (stage.name == names[s]) present.push_back({labels[r], r % kRunColours, &stage});
    links += fmt::format("<a href=\"#stage-{}\">{}</a>", s, html_text(names[s]));
    sections += stage_section(s, names[s], present);
  }
  for (size_t r = 0; r < runs.size(); ++r)
    if (!runs[r].config.empty())
      configs += fmt::format("<details class=\"config\"><summary>{}</summary><pre>{}</pre></details>",
                             run_tag(labels[r], r % kRunColours), html_text(runs[r].config));
  std::string title;
  for (const std::string& label : labels) title += (title.empty() ? "" : ", ") + label;

  // The policy lets the page load and run nothing, whatever a sample says.
  return "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
         "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>" +
         html_text(title) + "</title><style>" + std::string(kReportStyle) + "</style></head>\n<body><header><h1>" +
         html_text(title) + "</h1><p class=\"muted\">dsengine report, " +
         fmt::format("{:%Y-%m-%d %H:%M} UTC", fmt::gmtime(std::time(nullptr))) + "</p><nav>" + links +
         (configs.empty() ? "" : "<a href=\"#configuration\">configuration</a>") + "</nav></header>\n" +
         run_table(runs, labels) + sections +
         (configs.empty() ? "" : "<section id=\"configuration\"><h2>Configuration</h2>" + configs + "</section>") +
         "</body></html>\n";
}

}  // namespace dsengine
