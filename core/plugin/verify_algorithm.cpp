// What can be said about an algorithm without a model: see verify_algorithm.
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "plugin/instance.h"
#include "plugin/sample_batch.h"
#include "plugin/verify.h"

namespace dsengine {
namespace {

constexpr uint64_t kSeeds[] = {1, 2, 3};
constexpr std::pair<uint32_t, const char*> kInputs[] = {
    {DSE_COLUMN_LOGP, "logp"}, {DSE_COLUMN_ENTROPY, "entropy"}, {DSE_COLUMN_VALUE, "value"}};

SampleBatch prepared(AlgorithmInstance& algorithm, uint64_t seed) {
  SampleBatch batch(algorithm.needs(), seed);
  algorithm.prepare(batch.view());
  DSE_CHECK_USER(batch.metric_fault().empty(), "prepare: {}; mend it", batch.metric_fault());
  return batch;
}

template <class T>
double largest(const std::vector<T>& values) {
  double result = 0;
  for (const T value : values) result = std::max(result, std::abs(static_cast<double>(value)));
  return result;
}

std::string describe(const dse_needs& needs) {
  constexpr const char* sources[] = {"rollouts", "records", "pairs"};
  constexpr const char* forms[] = {"token", "row", "pair", "raw"};
  return fmt::format("a loss by {} on {}, roles {:#x}, trained {:#x}, columns {:#x}, {} own", forms[needs.form],
                     sources[needs.source], needs.roles, needs.trained, needs.columns, needs.own_columns);
}

// Losses and gradients are finite, some gradient is not zero, and masked tokens move nothing of the actor's.
std::string check_loss(const Item& item, const OptionSet& options) {
  double highest = 0, steepest = 0;
  int64_t rows = 0;
  for (const uint64_t seed : kSeeds) {
    AlgorithmInstance algorithm(item, options);
    const SampleBatch batch = prepared(algorithm, seed);
    LossResult result = loss_of(algorithm, batch);
    for (const double loss : result.loss) {
      DSE_CHECK_USER(std::isfinite(loss), "a loss is {} on finite columns (seed {})", loss, seed);
      highest = std::max(highest, std::abs(loss));
    }
    for (const auto& [column, name] : kInputs)
      for (size_t t = 0; t < result.by(column).size(); ++t) {
        const float slope = result.by(column)[t];
        DSE_CHECK_USER(std::isfinite(slope), "d_{} is {} on finite columns (seed {})", name, slope, seed);
        DSE_CHECK_USER(column == DSE_COLUMN_VALUE || batch.mask()[t] != 0 || slope == 0,
                       "d_{} of a masked token is {}; skip tokens whose mask is 0 (seed {})", name, slope, seed);
        steepest = std::max(steepest, std::abs(static_cast<double>(slope)));
      }
    rows += batch.row_count();
  }
  DSE_CHECK_USER(steepest > 0, "every gradient is zero: nothing would be learnt; fill the arrays of dse_gradients");
  return fmt::format("{} rows, largest |loss| {:.4g}, largest |gradient| {:.4g}", rows, highest, steepest);
}

// One derivative by differences at steps h and h/2.
//
// Inputs are float32, so a plugin may compute in float32: a difference then carries up to ~4 roundings of
// 2^-24 * |loss|, over the step. h = 2^-7 balances that (3e-5 * |loss|) with the truncation h^2/24 * f'''
// (2.5e-6 * f''') of the central difference at h/2.
constexpr double kStep = 0x1p-7;

struct Difference {
  double central = 0;    // at h/2
  double roughness = 0;  // 0 for a smooth function up to O(h^2); of the order of the jump of slope near a kink
};

Difference difference(AlgorithmInstance& algorithm, SampleBatch& batch, uint32_t column, size_t t,
                      const std::vector<double>& at_centre) {
  float& input = batch.column(column)[t];
  const float centre = input;
  // The exact step is what float32 made of it. Units that do not move cancel exactly.
  const auto slope_to = [&](double step) {
    input = static_cast<float>(centre + step);
    const double taken = static_cast<double>(input) - centre;
    const auto moved = loss_of(algorithm, batch).loss;
    input = centre;
    double rise = 0;
    for (size_t u = 0; u < moved.size(); ++u) rise += moved[u] - at_centre[u];
    return rise / taken;
  };
  const double right = slope_to(kStep), left = slope_to(-kStep);
  const double near_right = slope_to(kStep / 2), near_left = slope_to(-kStep / 2);
  const double wide = (right + left) / 2, narrow = (near_right + near_left) / 2;
  // Of a smooth function the one-sided slopes differ by h f'', twice as much at h as at h/2, and the central
  // ones agree to O(h^2). A kink within h breaks at least one of the two.
  return {narrow, std::max(std::abs(wide - narrow), std::abs((right - left) - 2 * (near_right - near_left)))};
}

std::string check_gradients(const Item& item, const OptionSet& options) {
  int64_t compared = 0, skipped = 0;
  double worst = 0;
  for (const uint64_t seed : kSeeds) {
    AlgorithmInstance algorithm(item, options);
    SampleBatch batch = prepared(algorithm, seed);
    LossResult result = loss_of(algorithm, batch);
    const double rounding = 0x1p-22 * largest(result.loss) / kStep;
    for (const auto& [column, name] : kInputs) {
      const auto& slopes = result.by(column);
      const double scale = largest(slopes);
      for (size_t t = 0; t < slopes.size(); ++t) {
        const auto numeric = difference(algorithm, batch, column, t, result.loss);
        const double given = slopes[t];
        const double tolerance = 1e-3 * std::max(std::abs(given), std::abs(numeric.central)) + 1e-4 * scale + rounding;
        if (numeric.roughness > tolerance) {
          ++skipped;
          continue;
        }
        const double error = std::abs(given - numeric.central);
        DSE_CHECK_USER(error <= tolerance, "d_{} is {:.6g}, but the loss rises by {:.6g} (token {}, seed {})", name,
                       given, numeric.central, t, seed);
        worst = std::max(worst, scale > 0 ? error / scale : error);
        ++compared;
      }
    }
  }
  DSE_CHECK_USER(compared > skipped, "only {} of {} points are smooth enough to compare", compared, compared + skipped);
  return fmt::format(
      "{} derivatives agree with central differences, worst {:.1e} of the largest; {} near kinks left out", compared,
      worst, skipped);
}

std::string check_determinism(const Item& item, const OptionSet& options) {
  for (const uint64_t seed : kSeeds) {
    AlgorithmInstance first(item, options), second(item, options);
    const SampleBatch batch = prepared(first, seed);
    const auto result = loss_of(first, batch);
    DSE_CHECK_USER(result == loss_of(first, batch), "loss gave another result the second time (seed {})", seed);
    DSE_CHECK_USER(result == loss_of(second, prepared(second, seed)), "two instances gave different results (seed {})",
                   seed);
  }
  return "the same bits twice, and from two instances";
}

// Up to rounding: a vectorised loop may treat its tail otherwise.
template <class T>
bool agree(const std::vector<T>& a, const std::vector<T>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](double x, double y) { return std::abs(x - y) <= 1e-6 * std::max(1.0, std::abs(x)); });
}

// The objective may not depend on how a batch is cut: into pairs or single rows, as the engine may cut it (answers to
// one prompt come apart too); raw losses see the whole batch by contract.
std::string check_micro_batches(const Item& item, const OptionSet& options) {
  for (const uint64_t seed : kSeeds) {
    AlgorithmInstance algorithm(item, options);
    if (algorithm.needs().form == DSE_FORM_RAW) return "not asked of raw losses";
    const SampleBatch batch = prepared(algorithm, seed);
    const LossResult whole = loss_of(algorithm, batch);
    LossResult pieces;
    const int64_t together = rows_together(algorithm.needs());
    for (int64_t row = 0; row < batch.row_count(); row += together) {
      LossResult piece = loss_of(algorithm, batch.rows(row, row + together));
      pieces.loss.insert(pieces.loss.end(), piece.loss.begin(), piece.loss.end());
      for (const auto& [column, name] : kInputs)
        pieces.by(column).insert(pieces.by(column).end(), piece.by(column).begin(), piece.by(column).end());
    }
    DSE_CHECK_USER(agree(pieces.loss, whole.loss) && agree(pieces.d_logp, whole.d_logp) &&
                       agree(pieces.d_entropy, whole.d_entropy) && agree(pieces.d_value, whole.d_value),
                   "losses depend on which rows share a micro-batch (seed {}); move what needs "
                   "all rows into prepare, or take a raw loss",
                   seed);
  }
  return "the same whole and cut as finely as the engine may";
}

std::string check_state(const Item& item, const OptionSet& options) {
  AlgorithmInstance original(item, options), restored(item, options);
  loss_of(original, prepared(original, kSeeds[0]));
  const auto state = original.save();
  restored.load(state);
  DSE_CHECK_USER(restored.save() == state, "save after load gives other bytes ({} of them)", state.size());
  DSE_CHECK_USER(loss_of(original, prepared(original, kSeeds[1])) == loss_of(restored, prepared(restored, kSeeds[1])),
                 "a loaded instance computes another loss than the saved one; save all that prepare changes");
  return state.empty() ? "none" : fmt::format("{} bytes, restored exactly", state.size());
}

}  // namespace

Checks verify_algorithm(const Item& item, const OptionSet& options) {
  Checks checks{run_check("create, needs", [&] { return describe(AlgorithmInstance(item, options).needs()); })};
  if (!checks[0].ok) return checks;
  constexpr std::pair<const char*, std::string (*)(const Item&, const OptionSet&)> list[] = {
      {"loss", check_loss},
      {"gradients", check_gradients},
      {"determinism", check_determinism},
      {"micro-batches", check_micro_batches},
      {"state", check_state}};
  for (const auto& [name, check] : list) checks.push_back(run_check(name, [&] { return check(item, options); }));
  return checks;
}

}  // namespace dsengine
