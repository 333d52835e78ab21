// The reward plugins on hand-worked answers.
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <fstream>
#include <optional>
#include <thread>

#include "base/check.h"
#include "base/json.h"
#include "base/log_watch.h"
#include "plugin/instance.h"
#include "plugin/registry.h"

namespace dsengine {
namespace {

using testing::TestWithParam;

float score(const char* reward, OptionValues options, const char* reply, const char* metadata, double model_score = 0,
            double mean = 0, double sd = 0) {
  static const PluginRegistry registry({std::filesystem::path(DSE_BINARY_DIR) / "lib/dsengine"});
  const Item& item = registry.find(DSE_REWARD_ITEM, reward);
  RewardInstance instance(item, OptionSet(item, options));
  const dse_answer answer{sizeof(dse_answer), DSE_FINISH_EOS, "prompt", reply, metadata, model_score, mean, sd, 3};
  return instance.score({&answer, 1})[0];
}

OptionValues with(std::initializer_list<std::pair<const std::string, OptionVariant>> values) {
  OptionValues options;
  for (const auto& [name, value] : values) options[name] = {value, ""};
  return options;
}

// 1: right, 0.1: wrong in the right form, 0: neither.
float number(const char* reply, const char* truth = R"({"answer": "so 48 + 24 = 72\n#### 72"})") {
  return score("match", with({{"format_score", 0.1}}), reply, truth);
}

// DAPO's equation 13 with L_max = 20, L_cache = 8, by hand.
TEST(OverlongReward, FallsLinearlyBeforeTheLimit) {
  static const PluginRegistry registry({std::filesystem::path(DSE_BINARY_DIR) / "lib/dsengine"});
  const Item& item = registry.find(DSE_REWARD_ITEM, "overlong");
  const auto options = with({{"max_length", int64_t{20}}, {"cache", int64_t{8}}, {"unfinished", -0.5}});
  RewardInstance instance(item, OptionSet(item, options));
  const auto of = [&](int64_t tokens, uint32_t finish) {
    const dse_answer answer{sizeof(dse_answer), finish, "prompt", "reply", nullptr, 0, 0, 0, tokens};
    return instance.score({&answer, 1})[0];
  };
  EXPECT_EQ(of(1, DSE_FINISH_EOS), 0.0f);
  EXPECT_EQ(of(12, DSE_FINISH_EOS), 0.0f);
  EXPECT_EQ(of(14, DSE_FINISH_EOS), -0.25f);
  EXPECT_EQ(of(20, DSE_FINISH_EOS), -1.0f);
  EXPECT_EQ(of(99, DSE_FINISH_LENGTH), -1.5f);
  EXPECT_THROW(RewardInstance(item, OptionSet(item, with({{"max_length", int64_t{3}}, {"cache", int64_t{4}}}))),
               UserError);
}

TEST(MatchReward, ReadsTheNumberAfterTheMarker) {
  EXPECT_EQ(number("It is 5.\n#### 72"), 1.0f);
  EXPECT_EQ(number("#### 72.0"), 1.0f);
  EXPECT_EQ(number("#### $72"), 1.0f);
  EXPECT_EQ(number("#### 72."), 1.0f);
  EXPECT_EQ(number("#### 5 then #### 72"), 1.0f);  // the last one counts
  EXPECT_EQ(number("#### 5, not 72"), 0.1f);
  EXPECT_EQ(number("####"), 0.0f);
  EXPECT_EQ(number("72"), 0.0f);
  EXPECT_EQ(number(""), 0.0f);
  EXPECT_EQ(number("#### -3", R"({"answer": "#### -3"})"), 1.0f);
  EXPECT_EQ(number("#### 3", R"({"answer": "#### -3"})"), 0.1f);
  EXPECT_EQ(number("#### 1,234,567", R"({"answer": "#### 1234567"})"), 1.0f);
  EXPECT_EQ(number("#### 0.5", R"({"answer": 0.5})"), 1.0f);
  EXPECT_EQ(number("#### .5", R"({"answer": "0.5"})"), 1.0f);
}

TEST(MatchReward, WithoutAMarkerTheLastNumberCounts) {
  const auto options = with({{"marker", std::string()}});
  EXPECT_EQ(score("match", options, "First 5, then 1,200.", R"({"answer": 1200})"), 1.0f);
  EXPECT_EQ(score("match", options, "First 1200, then 5", R"({"answer": 1200})"), 0.0f);
}

TEST(MatchReward, ExactAndRegex) {
  const auto exact = with({{"kind", std::string("exact")}, {"field", std::string("city")}});
  EXPECT_EQ(score("match", exact, " Paris\n", R"({"city": "Paris"})"), 1.0f);
  EXPECT_EQ(score("match", exact, "paris", R"({"city": "Paris"})"), 0.0f);
  const auto group =
      with({{"kind", std::string("regex")}, {"pattern", std::string("answer is (\\w+)")}, {"format_score", 0.2}});
  EXPECT_EQ(score("match", group, "the answer is Köln.", R"({"answer": "Köln"})"), 1.0f);
  EXPECT_EQ(score("match", group, "the answer is Bonn.", R"({"answer": "Köln"})"), 0.2f);
  EXPECT_EQ(score("match", group, "Köln", R"({"answer": "Köln"})"), 0.0f);
  const auto form = with({{"kind", std::string("regex")}, {"pattern", std::string("^<think>.*</think>")}});
  EXPECT_EQ(score("match", form, "<think>x</think> y", nullptr), 1.0f);
  EXPECT_EQ(score("match", form, "y", nullptr), 0.0f);
  // A pattern that would run for ages, and bytes that are no UTF-8, match nothing.
  const auto slow = with({{"kind", std::string("regex")}, {"pattern", std::string("^(?:a+)+$")}});
  EXPECT_EQ(score("match", slow, (std::string(40, 'a') + "!").c_str(), nullptr), 0.0f);
  EXPECT_EQ(score("match", form, "\xff\xfe", nullptr), 0.0f);
}

TEST(MatchReward, SaysWhatIsWrong) {
  EXPECT_THROW(score("match", {}, "#### 1", nullptr), UserError);
  EXPECT_THROW(score("match", {}, "#### 1", R"({"other": 1})"), UserError);
  EXPECT_THROW(score("match", {}, "#### 1", R"({"answer": "none"})"), UserError);
  EXPECT_THROW(score("match", with({{"kind", std::string("regex")}, {"pattern", std::string("(")}}), "x", nullptr),
               UserError);
  EXPECT_THROW(score("match", with({{"kind", std::string("fuzzy")}}), "x", nullptr), UserError);
}

TEST(ModelReward, IsInStandardDeviations) {
  EXPECT_FLOAT_EQ(score("model", {}, "x", nullptr, 5, 2, 1.5), 2.0f);
  EXPECT_FLOAT_EQ(score("model", {}, "x", nullptr, 5, 0, 0), 5.0f);  // not recorded
  EXPECT_FLOAT_EQ(score("model", with({{"normalize", false}, {"shift", 1.0}, {"scale", 0.5}}), "x", nullptr, 5, 2, 1.5),
                  3.0f);
}

// A reward process in Python: `body` gets the request as `a` and prints.
class ProcessReward : public testing::Test {
 protected:
  std::vector<float> ask(const std::string& body, int count, OptionValues options = {}) {
    const auto file = std::filesystem::path(testing::TempDir()) / fmt::format("dse_reward_{}.py", getpid());
    write_text(
        file,
        "import sys, json, time, os\nfor line in sys.stdin:\n    a = json.loads(line)\n    n = int(a['prompt'])\n" +
            body + "\n    sys.stdout.flush()\n");
    options["command"] = {"exec python3 " + file.string(), ""};
    static const PluginRegistry registry({std::filesystem::path(DSE_BINARY_DIR) / "lib/dsengine"});
    const Item& item = registry.find(DSE_REWARD_ITEM, "process");
    RewardInstance instance(item, OptionSet(item, options));
    std::vector<std::string> prompts;
    for (int i = 0; i < count; ++i) prompts.push_back(std::to_string(i));
    std::vector<dse_answer> answers;
    for (const auto& p : prompts)
      answers.push_back({sizeof(dse_answer), DSE_FINISH_EOS, p.c_str(), "a \"reply\"\n", metadata.c_str(), 0, 0, 1, 3});
    auto scores = instance.score(answers);
    std::filesystem::remove(file);
    return scores;
  }
  static void expect_scores(const std::vector<float>& found, const std::vector<float>& expected) {
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i)
      if (std::isnan(expected[i]))
        EXPECT_TRUE(std::isnan(found[i])) << i << ": " << found[i];
      else
        EXPECT_FLOAT_EQ(found[i], expected[i]) << i;
  }
  std::string metadata = R"({"k": [1, 2]})";
  static constexpr const char* answer = "json.dumps({'id': a['id'], 'score': n + 0.5})";
};

TEST_F(ProcessReward, AnswersInTurn) {
  expect_scores(ask("    assert a['reply'] == 'a \"reply\"\\n' and a['metadata'] == {'k': [1, 2]} and a['finish'] == "
                    "'eos'\n    print(" +
                        std::string(answer) + ")",
                    5),
                {0.5f, 1.5f, 2.5f, 3.5f, 4.5f});
}

TEST_F(ProcessReward, MetadataAreWrittenAsTheyAre) {
  metadata = "{\"n\": 123456789012345678901234567890,\n \"d\": 0.10, \"z\": -0.0, \"s\": \"a, b} \\\" \\u00e9\"}";
  expect_scores(
      ask("    assert '123456789012345678901234567890,' in line and '0.10,' in line and '-0.0' in line, line\n"
          "    assert a['metadata']['s'] == 'a, b} \" \\xe9'\n    print(" +
              std::string(answer) + ")",
          1),
      {0.5f});
  metadata = "{broken";
  expect_scores(ask("    assert a['metadata'] is None\n    print(" + std::string(answer) + ")", 1), {0.5f});
}

// It ends, prints what is no answer, the answer to another id, a NaN or nothing in time: that answer alone has failed,
// and the next is asked of a program in step.
TEST_F(ProcessReward, AFailedAnswerIsDroppedAndTheRestGoOn) {
  const std::string print = "print(" + std::string(answer) + ")";
  for (const std::string fault :
       {"os._exit(3)", "print('garbage')", "print(json.dumps({'id': 99, 'score': 1}))",
        "print(json.dumps({'id': a['id'], 'score': float('nan')}))",
        "print(json.dumps({'id': a['id'], 'score': None}))", "print(json.dumps({'id': a['id']}))", "time.sleep(60)"}) {
    SCOPED_TRACE(fault);
    expect_scores(ask("    if n == 1: " + fault + "\n    else: " + print, 4, with({{"deadline", 3.0}})),
                  {0.5f, NAN, 2.5f, 3.5f});
  }
}

TEST_F(ProcessReward, AScoreBeyondFloat32HasFailed) {
  expect_scores(ask("    print(json.dumps({'id': a['id'], 'score': [1e39, -1e300, 3e38, 10**400, True][n]}))", 5),
                {NAN, NAN, 3e38f, NAN, NAN});
}

// Signals that interrupt the wait are no deadline: every answer is waited for.
TEST_F(ProcessReward, SignalsDropNoAnswer) {
  struct sigaction noted {
  }, old{};
  noted.sa_handler = [](int) {};  // without SA_RESTART, which poll does not heed anyway
  sigaction(SIGUSR1, &noted, &old);
  std::atomic<bool> done{false};
  std::thread sender([&, to = pthread_self()] {
    while (!done) pthread_kill(to, SIGUSR1), usleep(2000);
  });
  expect_scores(ask("    time.sleep(0.2)\n    print(" + std::string(answer) + ")", 4), {0.5f, 1.5f, 2.5f, 3.5f});
  done = true;
  sender.join();
  sigaction(SIGUSR1, &old, nullptr);
}

// It answers, but only into a buffer.
TEST_F(ProcessReward, AProgramThatDoesNotFlushIsNamed) {
  unsetenv("PYTHONUNBUFFERED");
  std::optional<LogWatch> log(std::in_place);
  const std::string never = "    sys.stdout.write(" + std::string(answer) + " + '\\n')\n    continue";
  expect_scores(ask(never, 2, with({{"deadline", 1.0}})), {NAN, NAN});
  const std::string told = log->text();
  log.emplace();
  expect_scores(ask("    time.sleep(60)", 1, with({{"deadline", 0.5}})), {NAN});
  EXPECT_NE(told.find("answer 1 of 2: no answer within the deadline, but one as soon as its input ended: it does not "
                      "flush its output"),
            told.npos)
      << told;
  EXPECT_EQ(log->text().find("flush"), std::string::npos) << log->text();
}

// Nothing of a program that fails, or is late, is left: nor of what it started in sessions of their own.
TEST_F(ProcessReward, LeavesNothingBehind) {
  const auto file = std::filesystem::path(testing::TempDir()) / fmt::format("dse_reward_pids_{}", getpid());
  const std::string start =
      "    import subprocess, signal\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
      "    p = subprocess.Popen(['setsid', 'sh', '-c', \"trap '' TERM; sleep 600 & wait\"], stdin=subprocess.DEVNULL, "
      "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n    time.sleep(0.3)\n    open('" +
      file.string() + "', 'a').write('%d %d ' % (os.getpid(), p.pid))\n";
  for (const std::string end :
       {"    print(json.dumps({'id': a['id'], 'score': 1}))", "    os._exit(3)", "    time.sleep(600)",
        "    os.kill(os.getpid(), 9)", "    sys.stdout.close(); time.sleep(600)"}) {
    ask(start + end, 1, with({{"deadline", 1.5}}));
    std::ifstream pids(file);
    int pid = 0, count = 0;
    for (; pids >> pid; ++count) EXPECT_EQ(kill(pid, 0), -1) << end << " left " << pid;
    EXPECT_EQ(count, 2) << end;
    std::filesystem::remove(file);
  }
}

TEST_F(ProcessReward, MayEndTheRun) {
  const std::string body = "    if n == 1: os._exit(3)\n    print(" + std::string(answer) + ")";
  EXPECT_THROW(ask(body, 3, with({{"on_failure", std::string("stop")}})), UserError);
  for (const char* key : {"max_failures", "max_failures_in_a_row"})
    EXPECT_THROW(ask("    os._exit(3)", 9, with({{key, int64_t{4}}})), UserError);
  try {
    ask("    os._exit(3)", 3, with({{"on_failure", std::string("stop")}}));
  } catch (const UserError& e) {
    EXPECT_NE(std::string(e.what()).find("answer 1 of 3"), std::string::npos) << e.what();
  }
  EXPECT_THROW(score("process", {}, "x", nullptr), UserError);  // no command
}

}  // namespace
}  // namespace dsengine
