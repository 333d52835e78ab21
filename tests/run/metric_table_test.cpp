// The table of the engine's metrics: found by name, none twice, phases told from other metrics.
#include "run/metric_table.h"

#include <gtest/gtest.h>

#include <set>

namespace dsengine {
namespace {

TEST(MetricTable, EachNameOnce) {
  std::set<std::string_view> names;
  for (const MetricRow& row : metric_rows()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    EXPECT_EQ(find_metric(row.name), &row);
    EXPECT_EQ(row.meaning.find('|'), std::string_view::npos) << row.name << ": would end the cell of the docs' table";
  }
  EXPECT_EQ(find_metric("clip_fraction"), nullptr);  // an algorithm's own
}

TEST(MetricTable, Phases) {
  EXPECT_EQ(phase_of_metric("seconds_generate"), "generate");
  EXPECT_EQ(phase_of_metric("seconds"), "");
  EXPECT_EQ(phase_of_metric("seconds_of_an_algorithm"), "");
}

}  // namespace
}  // namespace dsengine
