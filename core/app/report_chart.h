// A chart of one metric over steps, several runs in it, as an SVG element.
//
//   Chart chart{"loss", "nats/token", {{"seed 1", 0, training, heldout}}};
//   page += draw_chart(chart);
//
// Training is drawn twice: every step thin, and a smoothed line over it. Held-out points are marks with bars of one
// standard error. Colours are the page's: the classes c0 … c7.
#pragma once
#include <string>
#include <vector>

#include "app/report_run.h"

namespace dsengine {

constexpr size_t kRunColours = 8;

struct HeldOutPoint {
  int64_t step;
  double value, standard_error;  // standard_error NaN: no bar
};

struct ChartRun {
  std::string label;
  size_t colour;  // 0 … kRunColours - 1
  std::vector<CurvePoint> training;
  std::vector<HeldOutPoint> heldout;
};

struct Chart {
  std::string title, unit;  // unit "": none
  std::vector<ChartRun> runs;
};

std::string draw_chart(const Chart& chart);

// Mean with triangular weights over a fortieth of the points (at most 50) to each side. NaN counts nowhere and stays.
std::vector<CurvePoint> smoothed(const std::vector<CurvePoint>& points);

// At most about 2 * buckets points: of each bucket of neighbours the least and the greatest, so that no peak is lost.
std::vector<CurvePoint> thinned(const std::vector<CurvePoint>& points, size_t buckets);

// The numbers 1, 2 or 5 times a power of ten apart that lie in [low, high], about `count` of them.
std::vector<double> axis_ticks(double low, double high, int count, double least_distance = 0);
// All with the same decimals; "k", "M" or "e-5" where digits would not fit.
std::vector<std::string> axis_labels(const std::vector<double>& ticks);

}  // namespace dsengine
