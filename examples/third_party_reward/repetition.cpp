// A penalty for answers that say the same again (as in Yeo et al. 2025, "Demystifying long chain-of-thought
// reasoning"): minus the share of an answer's word n-grams that stood in it before. It goes beside another reward.
#include <dsengine/reward.hpp>

#include <set>
#include <sstream>

struct Repetition {
  static constexpr const char* summary = "a penalty for word n-grams that an answer repeats";
  size_t n;

  explicit Repetition(dse::Options& o) : n(size_t(o.integer("n", 3, "words of an n-gram", {1, 100}))) {}

  float score(const dse::Answer& a) const {
    std::istringstream text(a.reply);
    std::vector<std::string> words;
    for (std::string word; text >> word;) words.push_back(word);
    if (words.size() < n) return 0;
    std::set<std::vector<std::string>> seen;
    for (size_t i = 0; i + n <= words.size(); ++i) seen.emplace(words.begin() + i, words.begin() + i + n);
    return float(double(seen.size()) / double(words.size() - n + 1) - 1);
  }
};
DSE_REWARD("repetition", Repetition)
