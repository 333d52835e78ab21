#include "app/report_chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "app/report_html.h"

namespace dsengine {

namespace {

constexpr double kWidth = 440, kHeight = 250, kLeft = 58, kRight = 14, kTop = 12, kBottom = 40;
constexpr size_t kBuckets = 400;
constexpr size_t kFewestToSmooth = 10;

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;

  void add(double value) {
    if (std::isfinite(value)) low = std::min(low, value), high = std::max(high, value);
  }
  bool empty() const { return low > high; }
  // A range of one value, and room at both ends.
  void widen(double share) {
    if (empty()) low = 0, high = 1;
    if (low == high) {
      const double room = low == 0 ? 1 : 0.1 * std::abs(low);
      low -= room, high += room;
    }
    const double room = share * (high - low);
    low -= room, high += room;
  }
};

struct Frame {
  Range x, y;

  double at_x(double step) const { return kLeft + (step - x.low) / (x.high - x.low) * (kWidth - kLeft - kRight); }
  double at_y(double value) const {
    return kHeight - kBottom - (value - y.low) / (y.high - y.low) * (kHeight - kTop - kBottom);
  }
};

Frame frame_of(const Chart& chart) {
  Frame frame;
  for (const ChartRun& run : chart.runs) {
    for (const CurvePoint& p : run.training) frame.x.add(double(p.step)), frame.y.add(p.value);
    for (const HeldOutPoint& p : run.heldout) {
      const double bar = std::isfinite(p.standard_error) ? p.standard_error : 0;
      frame.x.add(double(p.step)), frame.y.add(p.value - bar), frame.y.add(p.value + bar);
    }
  }
  frame.x.widen(0.015), frame.y.widen(0.05);
  return frame;
}

std::string axes(const Chart& chart, const Frame& frame) {
  std::string out;
  const auto ys = axis_ticks(frame.y.low, frame.y.high, 5), xs = axis_ticks(frame.x.low, frame.x.high, 6, 1);
  const auto y_labels = axis_labels(ys), x_labels = axis_labels(xs);
  for (size_t i = 0; i < ys.size(); ++i)
    out += fmt::format(
        "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/><text class=\"y\" x=\"{}\" "
        "y=\"{:.1f}\">{}</text>",
        kLeft, kWidth - kRight, frame.at_y(ys[i]), frame.at_y(ys[i]), kLeft - 6, frame.at_y(ys[i]) + 4, y_labels[i]);
  const double bottom = kHeight - kBottom;
  for (size_t i = 0; i < xs.size(); ++i)
    out += fmt::format(
        "<line class=\"tick\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/><text class=\"x\" x=\"{0:.1f}\" "
        "y=\"{3}\">{4}</text>",
        frame.at_x(xs[i]), bottom, bottom + 4, bottom + 17, x_labels[i]);
  out += fmt::format("<line class=\"axis\" x1=\"{}\" x2=\"{}\" y1=\"{}\" y2=\"{}\"/>", kLeft, kWidth - kRight, bottom,
                     bottom);
  out +=
      fmt::format("<text class=\"x label\" x=\"{}\" y=\"{}\">step</text>", (kLeft + kWidth - kRight) / 2, kHeight - 6);
  const double middle = (kTop + bottom) / 2;
  out += fmt::format("<text class=\"x label\" transform=\"translate(12,{}) rotate(-90)\">{}</text>", middle,
                     html_text(chart.unit.empty() ? chart.title : chart.unit));
  return out;
}

// A path that lifts the pen where there is no value.
std::string path(const std::vector<CurvePoint>& points, const Frame& frame, const char* classes) {
  std::string d;
  bool drawing = false;
  for (const CurvePoint& p : points) {
    if (!std::isfinite(p.value)) {
      drawing = false;
      continue;
    }
    d += fmt::format("{}{:.1f},{:.1f}", drawing ? "L" : "M", frame.at_x(double(p.step)), frame.at_y(p.value));
    if (!drawing) d += "h0";  // a point that stands alone is a dot
    drawing = true;
  }
  return d.empty() ? "" : fmt::format("<path class=\"{}\" d=\"{}\"/>", classes, d);
}

std::string mark(const HeldOutPoint& p, const ChartRun& run, const Frame& frame) {
  if (!std::isfinite(p.value)) return "";
  const double x = frame.at_x(double(p.step));
  const bool has_bar = std::isfinite(p.standard_error);
  std::string out = fmt::format("<g class=\"mark\"><title>{}, held out, step {}: {}{}</title>", html_text(run.label),
                                p.step, number_text(p.value), has_bar ? " ± " + number_text(p.standard_error) : "");
  if (has_bar)
    out += fmt::format("<path class=\"bar\" d=\"M{0:.1f},{1:.1f}V{2:.1f}M{3:.1f},{1:.1f}h6M{3:.1f},{2:.1f}h6\"/>", x,
                       frame.at_y(p.value - p.standard_error), frame.at_y(p.value + p.standard_error), x - 3);
  return out + fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.2\"/></g>", x, frame.at_y(p.value));
}

}  // namespace

std::vector<CurvePoint> smoothed(const std::vector<CurvePoint>& points) {
  const int64_t n = int64_t(points.size()), reach = std::clamp<int64_t>(n / 40, 1, 50);
  std::vector<CurvePoint> result = points;
  for (int64_t i = 0; i < n; ++i) {
    double sum = 0, weights = 0;
    for (int64_t k = std::max<int64_t>(0, i - reach); k <= std::min(n - 1, i + reach); ++k) {
      if (!std::isfinite(points[size_t(k)].value)) continue;
      const double weight = double(reach + 1 - std::abs(i - k));
      sum += weight * points[size_t(k)].value, weights += weight;
    }
    if (std::isfinite(points[size_t(i)].value)) result[size_t(i)].value = sum / weights;
  }
  return result;
}

std::vector<CurvePoint> thinned(const std::vector<CurvePoint>& points, size_t buckets) {
  if (points.size() <= 2 * buckets) return points;
  std::vector<CurvePoint> result;
  for (size_t b = 0; b < buckets; ++b) {
    const auto first = points.begin() + int64_t(b * points.size() / buckets),
               last = points.begin() + int64_t((b + 1) * points.size() / buckets);
    auto least = last, greatest = last;
    for (auto p = first; p != last; ++p) {
      if (!std::isfinite(p->value)) continue;
      if (least == last || p->value < least->value) least = p;
      if (greatest == last || p->value > greatest->value) greatest = p;
    }
    if (least == last)
      result.push_back(*first);  // nothing but gaps
    else if (least == greatest)
      result.push_back(*least);
    else
      result.push_back(*std::min(least, greatest)), result.push_back(*std::max(least, greatest));
  }
  return result;
}

std::vector<double> axis_ticks(double low, double high, int count, double least_distance) {
  const double wanted = (high - low) / count, power = std::pow(10, std::floor(std::log10(wanted)));
  double distance = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= wanted * 0.8) distance = factor * power;
  distance = std::max(distance, least_distance);
  std::vector<double> ticks;
  for (double k = std::ceil(low / distance); k * distance <= high && ticks.size() < 100; ++k)
    ticks.push_back(k * distance + 0.0);  // no negative zero
  return ticks;
}

std::vector<std::string> axis_labels(const std::vector<double>& ticks) {
  double largest = 0;
  for (const double t : ticks) largest = std::max(largest, std::abs(t));
  const double distance = ticks.size() > 1 ? ticks[1] - ticks[0] : largest;
  double factor = 1;
  std::string suffix;
  if (largest >= 1e9)
    factor = 1e9, suffix = "G";
  else if (largest >= 1e6)
    factor = 1e6, suffix = "M";
  else if (largest >= 1e4)
    factor = 1e3, suffix = "k";
  else if (largest > 0 && largest < 1e-3) {
    const int exponent = int(std::floor(std::log10(largest) + 1e-9));
    factor = std::pow(10, exponent), suffix = fmt::format("e{}", exponent);
  }
  const int decimals = distance > 0 ? std::clamp(int(-std::floor(std::log10(distance / factor) + 1e-9)), 0, 9) : 0;
  std::vector<std::string> labels;
  for (const double t : ticks) labels.push_back(t == 0 ? "0" : fmt::format("{:.{}f}{}", t / factor, decimals, suffix));
  return labels;
}

std::string draw_chart(const Chart& chart) {
  const Frame frame = frame_of(chart);
  std::string out = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{} over steps\">", kWidth,
                                kHeight, html_text(chart.title));
  out += axes(chart, frame);
  for (const ChartRun& run : chart.runs) {
    const bool smooth = run.training.size() >= kFewestToSmooth;
    out += fmt::format("<g class=\"run c{}\"><title>{}</title>", run.colour % kRunColours, html_text(run.label));
    out += path(thinned(run.training, kBuckets), frame, smooth ? "raw faint" : "raw");
    if (smooth) out += path(thinned(smoothed(run.training), kBuckets), frame, "smooth");
    for (const HeldOutPoint& p : run.heldout) out += mark(p, run, frame);
    out += "</g>";
  }
  return out + "</svg>";
}

}  // namespace dsengine
