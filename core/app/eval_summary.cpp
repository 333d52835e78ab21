#include "app/eval_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/printable.h"

namespace dsengine {

namespace {

std::string with_error(const Json& m) {
  const Json& error = m.at("standard_error");
  return fmt::format("{:.4g}{}", m.at("mean").get<double>(),
                     error.is_null() ? "" : fmt::format(" ± {:.2g}", error.get<double>()));
}

std::string indented(const std::string& text) {
  std::string result = "    ";
  for (const char c : printable_text(text)) result += c == '\n' ? "\n    " : std::string(1, c);
  return result;
}

}  // namespace

std::string eval_summary(const Json& r, int64_t shown_answers) {
  std::string text;
  const std::vector<std::string> names{"model", "other"};
  for (size_t m = 0; m < names.size() && r.contains(names[m]); ++m) {
    text += fmt::format("{:<6} {}\n", names[m], r[names[m]].get<std::string>());
    if (r.contains("loss"))
      text += fmt::format("       loss {:.4f} nats a token, perplexity {:.4g}, {} tokens\n",
                          r["loss"][m]["mean"].get<double>(), r["loss"][m]["perplexity"].get<double>(),
                          r["loss"][m]["tokens"].get<double>());
    if (r.contains("reward"))
      text += fmt::format("       reward {} of {} answers\n", with_error(r["reward"][m]),
                          r["reward"][m]["count"].get<int64_t>());
  }
  if (r.contains("loss_difference"))
    text += fmt::format("other - model: loss {}, mean over records\n", with_error(r["loss_difference"]));
  if (r.contains("reward_difference"))
    text += fmt::format("other - model: reward {}; better {}, equal {}, worse {}\n", with_error(r["reward_difference"]),
                        r["better"].get<int64_t>(), r["equal"].get<int64_t>(), r["worse"].get<int64_t>());
  if (r.contains("accuracy"))
    text += fmt::format("reward model: accuracy {}, margin {}, {} pairs\n", with_error(r["accuracy"]),
                        with_error(r["margin"]), r["accuracy"]["count"].get<int64_t>());
  const Json samples = r.value("samples", Json::array());
  for (size_t i = 0; i < std::min(samples.size(), size_t(shown_answers)); ++i) {
    text += fmt::format("\nprompt\n{}\n", indented(samples[i]["prompt"].get<std::string>()));
    for (size_t m = 0; m < samples[i]["replies"].size(); ++m)
      text += fmt::format("{}{}\n{}\n", names[m],
                          samples[i]["rewards"][m].is_null() || std::isnan(samples[i]["rewards"][m].get<double>())
                              ? ""
                              : fmt::format(" ({:.3g})", samples[i]["rewards"][m].get<double>()),
                          indented(samples[i]["replies"][m].get<std::string>()));
  }
  return text;
}

}  // namespace dsengine
