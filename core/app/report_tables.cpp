#include "app/report_tables.h"

#include <algorithm>
#include <cmath>

#include "app/report_chart.h"
#include "app/report_html.h"
#include "run/metric_table.h"
#include "run/progress.h"

namespace dsengine {

namespace {

constexpr size_t kLastSteps = 10;

double sum_of(const Curve* curve, size_t& count) {
  double sum = 0;
  count = 0;
  if (!curve) return 0;
  for (const CurvePoint& p : curve->points)
    if (std::isfinite(p.value)) sum += p.value, ++count;
  return sum;
}

std::string state_of(const ReportStage& stage) {
  size_t steps = 0;
  const double seconds = sum_of(find_curve(stage.training, "seconds"), steps);
  return fmt::format("<td>{} {}<br><span class=\"muted\">{}</span></td>",
                     stage.finished ? "finished," : "not finished, at step",
                     stage.finished ? fmt::format("{} steps", stage.steps) : std::to_string(stage.steps),
                     steps ? duration_text(seconds) + " in steps" : "no steps yet");
}

struct PhaseTime {
  std::string_view name;
  double seconds;  // a step
};

std::vector<PhaseTime> phases_of(const ReportStage& stage) {
  std::vector<PhaseTime> phases;
  for (const MetricRow& row : metric_rows()) {
    const auto phase = phase_of_metric(row.name);
    const Curve* curve = phase.empty() ? nullptr : find_curve(stage.training, row.name);
    size_t steps = 0;
    const double seconds = sum_of(curve, steps);
    if (seconds > 0) phases.push_back({phase, seconds / double(steps)});
  }
  return phases;
}

std::string seconds_text(double seconds) {
  return seconds >= 1 ? fmt::format("{:.2f} s", seconds)
                      : fmt::format("{:.{}f} ms", 1e3 * seconds, seconds < 0.01 ? 1 : 0);
}

double total(const std::vector<PhaseTime>& phases) {
  double sum = 0;
  for (const PhaseTime& p : phases) sum += p.seconds;
  return sum;
}

std::string bar_of(const StageOfRun& run, const std::vector<PhaseTime>& phases, double longest) {
  const double step = total(phases);
  std::string out = fmt::format(
      "<div class=\"phases\"><div class=\"who\">{} <span class=\"muted\">{} a step</span></div>"
      "<div class=\"stack\" style=\"width:{:.2f}%\">",
      run_tag(run.label, run.colour), seconds_text(step), 100 * step / longest);
  for (const PhaseTime& p : phases)
    out += fmt::format("<i class=\"p-{}\" style=\"width:{:.2f}%\" title=\"{}: {}\"></i>", p.name,
                       100 * p.seconds / step, p.name, seconds_text(p.seconds));
  out += "</div><ul>";
  for (const PhaseTime& p : phases)
    out += fmt::format("<li><i class=\"p-{}\"></i>{} {} <span class=\"muted\">{:.0f} %</span></li>", p.name, p.name,
                       seconds_text(p.seconds), 100 * p.seconds / step);
  return out + "</ul></div>";
}

std::string training_cell(const Curve* curve) {
  double sum = 0;
  size_t count = 0;
  if (curve)
    for (size_t i = curve->points.size() - std::min(curve->points.size(), kLastSteps); i < curve->points.size(); ++i)
      if (std::isfinite(curve->points[i].value)) sum += curve->points[i].value, ++count;
  return fmt::format("<td class=\"n\">{}</td>", count ? number_text(sum / double(count)) : "");
}

std::string heldout_cell(const Curve* curve, const Curve* errors, bool last) {
  if (!curve || curve->points.empty()) return "<td></td>";
  const CurvePoint& p = last ? curve->points.back() : curve->points.front();
  std::string error;
  if (errors)
    for (const CurvePoint& e : errors->points)
      if (e.step == p.step && std::isfinite(e.value)) error = " ± " + fmt::format("{:.2g}", e.value);
  return fmt::format("<td class=\"n\">{}<span class=\"muted\">{}</span></td>", number_text(p.value), error);
}

std::string answer(const AnswerSample* sample, int64_t step) {
  if (!sample) return "";
  const std::string reward = std::isfinite(sample->reward) ? " · reward " + number_text(sample->reward) : "";
  return fmt::format("<div><h5>step {}{}</h5><pre dir=\"auto\">{}</pre></div>", step, reward,
                     sample->reply.empty() ? "<span class=\"muted\">(empty)</span>" : html_text(sample->reply));
}

}  // namespace

std::string run_tag(const std::string& label, size_t colour) {
  return fmt::format("<span class=\"tag c{}\"><i></i>{}</span>", colour, html_text(label));
}

std::string run_table(const std::vector<ReportRun>& runs, const std::vector<std::string>& labels) {
  std::string out = "<div class=\"wide\"><table><tr><th>run</th><th>seed</th><th>stages</th></tr>";
  for (size_t r = 0; r < runs.size(); ++r) {
    out +=
        fmt::format("<tr><td>{}<br><span class=\"muted\">{}</span></td><td>{}</td><td><table class=\"inner\"><tr>",
                    run_tag(labels[r], r % kRunColours), html_text(runs[r].folder.string()), html_text(runs[r].seed));
    for (const ReportStage& stage : runs[r].stages) out += "<th>" + html_text(stage.name) + "</th>";
    out += "</tr><tr>";
    for (const ReportStage& stage : runs[r].stages) out += state_of(stage);
    out += runs[r].stages.empty() ? "<td>none has begun</td>" : "";
    out += "</tr></table></td></tr>";
  }
  return out + "</table></div>";
}

std::string phase_bars(const std::vector<StageOfRun>& runs) {
  double longest = 0;
  for (const StageOfRun& run : runs) longest = std::max(longest, total(phases_of(*run.stage)));
  if (longest == 0) return "";
  std::string out;
  for (const StageOfRun& run : runs)
    if (const auto phases = phases_of(*run.stage); total(phases) > 0) out += bar_of(run, phases, longest);
  return out;
}

std::string number_table(const std::vector<std::string>& names, const std::vector<StageOfRun>& runs) {
  std::string head, columns, rows;
  for (const StageOfRun& run : runs) {
    head += fmt::format("<th colspan=\"3\">{}</th>", run_tag(run.label, run.colour));
    columns += "<th class=\"n\">training</th><th class=\"n\">held out, first</th><th class=\"n\">held out, last</th>";
  }
  for (const std::string& name : names) {
    const MetricRow* row = find_metric(name);
    rows += fmt::format("<tr><td>{} <span class=\"muted\">{}</span></td>", html_text(name), row ? row->unit : "");
    for (const StageOfRun& run : runs) {
      const Curve* heldout = find_curve(run.stage->evaluation, name);
      const Curve* errors = find_curve(run.stage->evaluation, name + "_standard_error");
      rows += training_cell(find_curve(run.stage->training, name)) + heldout_cell(heldout, errors, false) +
              heldout_cell(heldout, errors, true);
    }
    rows += "</tr>";
  }
  return fmt::format(
      "<div class=\"wide\"><table class=\"numbers\"><tr><th></th>{}</tr><tr><th>metric</th>{}</tr>{}</table></div>"
      "<p class=\"muted\">training: mean of the last {} steps. ±: standard error over the held-out rows.</p>",
      head, columns, rows, kLastSteps);
}

std::string sample_cards(const StageOfRun& run) {
  const SampleSet &first = run.stage->first, &last = run.stage->last;
  const bool both = last.step != first.step;
  std::vector<bool> taken(first.samples.size(), false);
  std::string out;
  for (const AnswerSample& after : last.samples) {
    const AnswerSample* before = nullptr;
    for (size_t i = 0; both && !before && i < first.samples.size(); ++i)
      if (!taken[i] && first.samples[i].prompt == after.prompt && first.samples[i].greedy == after.greedy)
        before = &first.samples[i], taken[i] = true;
    out += fmt::format(
        "<div class=\"sample\"><h4>{}</h4><pre class=\"prompt\" dir=\"auto\">{}</pre><div class=\"answers\">{}{}</div>"
        "</div>",
        after.greedy ? "likeliest answer" : "sampled answer", html_text(after.prompt), answer(before, first.step),
        answer(&after, last.step));
  }
  return out;
}

}  // namespace dsengine
