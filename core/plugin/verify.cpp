#include "plugin/verify.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/json.h"
#include "plugin/host.h"
#include "plugin/instance.h"
#include "plugin/plugin_index.h"

namespace dsengine {
namespace {

Checks verify_dataset(const Item& item, const OptionSet& options) {
  return {run_check("missing file", [&] {
    const std::string path = "/nonexistent/dsengine/verify.jsonl";
    std::string text;
    try {
      DatasetInstance(item, options, path);
    } catch (const UserError& e) {
      text = e.what();
    }
    DSE_CHECK_USER(!text.empty(), "opened {}, which does not exist; open must check its path", path);
    DSE_CHECK_USER(text.find("gave no reason") == std::string::npos, "{}", text);
    return "refused: " + text;
  })};
}

Checks verify_reward(const Item& item, const OptionSet& options) {
  const dse_answer answer{
      sizeof(dse_answer), DSE_FINISH_EOS, "What is two and two?", "It is 4.", R"({"answer": "4"})", 0.5, 0, 1, 3};
  dse_answer empty = answer, bare = answer;
  empty.finish = DSE_FINISH_LENGTH, empty.reply = "", empty.model_score = -0.5;
  bare.metadata = nullptr;
  const auto score = [&](const std::vector<dse_answer>& answers) {
    RewardInstance reward(item, options);
    const auto scores = reward.score(answers);
    DSE_CHECK_USER(std::none_of(scores.begin(), scores.end(), [](float s) { return std::isinf(s); }),
                   "a score is infinite; give NaN for an answer that cannot be scored");
    return fmt::format("{}{}", reward.needs_model() ? "with a reward model: " : "", fmt::join(scores, ", "));
  };
  return {run_check("score",
                    [&] {
                      return score({answer, empty});
                    }),
          run_check("no metadata", [&] {  // scored, or refused with a reason: not a crash
            try {
              return score({bare});
            } catch (const UserError& e) {
              return std::string("refused: ") + e.what();
            }
          })};
}

Checks checks_of_kind(const Item& item, const OptionSet& options) {
  switch (item.kind) {
    case DSE_ALGORITHM:
      return verify_algorithm(item, options);
    case DSE_DATASET:
      return verify_dataset(item, options);
    case DSE_REWARD_ITEM:
      return verify_reward(item, options);
    case DSE_MODEL:
      return {{"architectures", true, fmt::format("{}", fmt::join(item.architectures(), ", "))}};
    default:
      return {{"operation", true, item.operation()}};
  }
}

}  // namespace

Check run_check(const std::string& name, const std::function<std::string()>& body) {
  try {
    return {name, true, body()};
  } catch (const UserError& e) {
    return {name, false, e.what()};
  }
}

Checks verify_item(const Item& item, const OptionValues& given, const VerifyHooks& hooks) {
  const auto prefix = fmt::format("{} {}: ", item_kind_name(item.kind), item.name);
  for (const auto& option : item.options)
    if (!option.default_value && !given.contains(option.name))
      return {{prefix + "table", true, fmt::format("the rest was not run: it needs its option '{}'", option.name)}};
  Checks checks{{"table", true, fmt::format("{} options", item.options.size())}};
  try {
    const OptionSet options(item, given);
    const auto append = [&](Checks more) { checks.insert(checks.end(), more.begin(), more.end()); };
    append(checks_of_kind(item, options));
    if (const auto hook = hooks.find(item.kind); hook != hooks.end()) append(hook->second(item, options));
  } catch (const UserError& e) {
    checks.push_back({"run", false, e.what()});
  }
  for (auto& check : checks) check.name = prefix + check.name;
  return checks;
}

Checks verify(const PluginRegistry& registry, const std::string& file_or_name, const VerifyHooks& hooks) {
  Checks checks;
  const int64_t changes = FloatGuard::changes();
  const auto finished = [&] {
    if (FloatGuard::changes() > changes)
      checks.push_back({"floating point", true,
                        "it sets rounding or flush-to-zero for the whole thread, which the engine puts back: build it, "
                        "and what it links, without -ffast-math",
                        true});
    return checks;
  };
  const auto add = [&](const Item& item) {
    const auto more = verify_item(item, {}, hooks);
    checks.insert(checks.end(), more.begin(), more.end());
  };
  if (file_or_name.find('/') != std::string::npos || file_or_name.ends_with(".so")) {
    try {
      const auto file = std::filesystem::absolute(file_or_name).lexically_normal();
      PluginIndex::of_process(file, /*anew=*/true);
      const auto noted = PluginIndex::of_notes(file);
      const PluginLibrary library(file);
      checks.push_back({"loads", true, fmt::format("{} items, sha256 {}", library.items().size(), library.sha256())});
      if (!noted.items.empty())
        checks.push_back({"notes", std::ranges::is_permutation(noted.items, PluginIndex::of(library).items),
                          "its ELF notes and its table of items should say the same"});
      for (const auto& item : library.items()) add(item);
    } catch (const UserError& e) {
      checks.push_back({"loads", false, e.what()});
    }
    return finished();
  }
  for (const Item* item : registry.require_named(file_or_name)) add(*item);
  return finished();
}

bool all_ok(const Checks& checks) {
  return std::all_of(checks.begin(), checks.end(), [](const Check& check) { return check.ok; });
}

std::string format_checks(const Checks& checks) {
  std::string text;
  for (const auto& check : checks)
    text += fmt::format("{:<6} {}: {}\n",
                        !check.ok       ? "FAILED"
                        : check.warning ? "warning"
                                        : "ok",
                        check.name, check.detail);
  return text;
}

}  // namespace dsengine
