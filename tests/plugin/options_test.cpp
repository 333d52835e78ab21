#include "plugin/options.h"

#include <cmath>

#include "plugin/fixtures.h"
#include "plugin/host.h"
#include "plugin/library.h"

namespace dsengine {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class Options : public testing::Test {
 protected:
  std::string error(const std::string& name, OptionVariant value) const {
    return error_of([&] { OptionSet(item(), {{name, {std::move(value), "run.toml:12: plugin.nll." + name}}}); });
  }
  const Item& item() const { return library_.items()[0]; }

 private:
  PluginLibrary library_{fixture("nll")};
};

TEST_F(Options, DefaultsAndGivenValuesReachThePlugin) {
  OptionSet made(item(), {{"scale", {int64_t{2}, ""}}, {"reduction", {std::string("mean"), ""}}});
  const OptionSet options = std::move(made);
  const dse_host& host = host_table();
  double scale = 0;
  int64_t rounds = 0;
  int32_t loud = 1;
  const char* reduction = nullptr;
  EXPECT_EQ(host.get_real(options.values(), "scale", &scale), DSE_OK);
  EXPECT_EQ(scale, 2.0);  // an integer serves as a real
  EXPECT_EQ(host.get_integer(options.values(), "rounds", &rounds), DSE_OK);
  EXPECT_EQ(rounds, 2);
  EXPECT_EQ(host.get_boolean(options.values(), "loud", &loud), DSE_OK);
  EXPECT_EQ(loud, 0);
  EXPECT_EQ(host.get_string(options.values(), "reduction", &reduction), DSE_OK);
  EXPECT_STREQ(reduction, "mean");
  EXPECT_EQ(options.to_toml(), "scale = 2.0\nreduction = \"mean\"\nloud = false\nrounds = 2\n");
}

TEST_F(Options, GettersRefuseUnknownNamesAndOtherTypes) {
  const OptionSet options(item(), {});
  double real = 0;
  int64_t integer = 0;
  EXPECT_EQ(host_table().get_real(options.values(), "slope", &real), DSE_BAD_OPTION);
  EXPECT_THAT(error_of([] { check_status(DSE_BAD_OPTION, "create"); }), HasSubstr("create: option 'slope' is not"));
  EXPECT_EQ(host_table().get_integer(options.values(), "scale", &integer), DSE_BAD_OPTION);
  EXPECT_EQ(host_table().get_real(nullptr, "scale", &real), DSE_BAD_OPTION);
}

TEST_F(Options, ErrorsNameWhereWhatAndTheNearestName) {
  EXPECT_THAT(error("scal", 1.0), AllOf(StartsWith("run.toml:12: plugin.nll.scal: "), HasSubstr("algorithm 'nll'"),
                                        HasSubstr("did you mean 'scale'?")));
  EXPECT_THAT(error("scale", std::string("big")), HasSubstr("plugin.nll.scale: wants real, not \"big\""));
  EXPECT_THAT(error("scale", true), HasSubstr("wants real, not true"));
  EXPECT_THAT(error("rounds", 2.0), HasSubstr("wants integer, not 2.0"));
  EXPECT_THAT(error("loud", int64_t{1}), HasSubstr("wants boolean, not 1"));
  EXPECT_THAT(error("scale", -0.5), HasSubstr("-0.5 is outside 0.0 … 10.0"));
  EXPECT_THAT(error("scale", int64_t{11}), HasSubstr("11.0 is outside"));
  EXPECT_THAT(error("scale", std::nan("")), HasSubstr("nan"));
  EXPECT_THAT(error("reduction", std::string("means")),
              AllOf(HasSubstr("none of sum | mean"), HasSubstr("did you mean \"mean\"?")));
  EXPECT_EQ(error("scale", 10.0), "");             // bounds are inclusive
  EXPECT_EQ(error("rounds", int64_t{-1000}), "");  // minimum > maximum: no range
}

// 2^53 + 1 and 2^63 - 1 are no doubles; 2^53 is one.
TEST_F(Options, WholeNumbersBecomeRealsExactlyOrNotAtAll) {
  EXPECT_THAT(error("scale", int64_t{9007199254740993}), HasSubstr("9007199254740993 is a whole number that no"));
  EXPECT_THAT(error("scale", INT64_MAX), HasSubstr("9223372036854775807 is a whole number that no"));
  EXPECT_THAT(error("scale", INT64_MIN), Not(HasSubstr("whole number that no")));  // -2^63 is a double
}

TEST_F(Options, RequiredOptionsMustBeGiven) {
  Item needy = item();
  needy.options[0].default_value = nullptr;
  EXPECT_THAT(error_of([&] { OptionSet(needy, {}); }),
              AllOf(HasSubstr("algorithm 'nll' needs its option 'scale'"), HasSubstr("weight of the loss")));
  EXPECT_NO_THROW(OptionSet(needy, {{"scale", {1.0, ""}}}));
}

}  // namespace
}  // namespace dsengine
