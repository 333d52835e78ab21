// PPO (Schulman et al. 2017) as a program of one's own on dsengine's library: rollouts, rewards, advantages, clipped
// updates of an actor with a LoRA adapter and of a critic. Everything between generation and the update is here.
//
//   custom_loop ACTOR REWARD_MODEL PROMPTS OUTPUT [STEPS]
//
// ACTOR and REWARD_MODEL are Hugging Face folders of one tokenizer, PROMPTS has a prompt a line; the trained actor is
// saved to OUTPUT.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <dsengine/engine.hpp>
#include <fstream>
#include <stdexcept>
namespace {

constexpr int64_t kBatch = 32, kEpochs = 2;
constexpr double kKl = 0.05, kLambda = 0.95, kClip = 0.2, kClipReward = 5;

std::vector<dse::Tokens> read_prompts(const char* file, const dse::Text& text) {
  std::vector<dse::Tokens> prompts;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (!line.empty()) prompts.push_back(text.prompt({{"user", line}}));
  if (prompts.empty()) throw std::runtime_error(std::string(file) + ": no prompts in it");
  return prompts;
}

// What a step learns from, a number for each token of each reply.
struct Experience {
  std::vector<dse::Reply> replies;
  dse::Columns old_logp, old_value, advantage, target;
  double mean_reward = 0, mean_kl = 0, tokens = 0;
};

Experience collect(const dse::Model& actor, const dse::Model& critic, const dse::Model& reward,
                   const std::vector<dse::Tokens>& prompts, uint64_t step) {
  Experience e;
  e.replies = actor.generate(prompts, {.max_new_tokens = 40, .step = step});
  e.old_logp = actor.log_probs(e.replies);
  e.old_value = critic.values(e.replies);
  const auto reference = actor.log_probs(e.replies, 1, /*with_adapter=*/false);
  std::vector<dse::Tokens> sequences;
  for (const auto& reply : e.replies) {
    sequences.push_back(reply.prompt);
    sequences.back().insert(sequences.back().end(), reply.tokens.begin(), reply.tokens.end());
  }
  const auto scores = reward.rewards(sequences);
  double sum = 0, squares = 0;
  for (size_t r = 0; r < e.replies.size(); ++r) {
    const size_t n = e.replies[r].tokens.size();
    auto &advantage = e.advantage.emplace_back(n), &target = e.target.emplace_back(n);
    double next = 0, after = 0;  // generalised advantage estimation, from the last token back
    for (size_t t = n; t-- > 0;) {
      const double kl = e.old_logp[r][t] - reference[r][t], value = e.old_value[r][t];
      double token_reward = -kKl * kl;
      if (t + 1 == n) token_reward += std::clamp(scores[r], -kClipReward, kClipReward);
      next = token_reward + after - value + kLambda * next;
      after = value;
      advantage[t] = float(next), target[t] = float(next + value);
      sum += next, squares += next * next, e.mean_kl += kl / double(e.replies.size());
    }
    e.mean_reward += scores[r] / double(e.replies.size()), e.tokens += double(n);
  }
  const double mean = sum / e.tokens, deviation = std::sqrt(squares / e.tokens - mean * mean + 1e-8);
  for (auto& row : e.advantage)
    for (auto& a : row) a = float((a - mean) / deviation);
  return e;
}

// The clipped objective and the critic's squared error, means over the step's tokens, with their slopes.
double ppo_loss(const Experience& e, dse::MicroBatch& micro) {
  double loss = 0;
  for (size_t r = 0; r < micro.logp.size(); ++r)
    for (size_t t = 0; t < micro.logp[r].size(); ++t) {
      const size_t row = micro.first + r;
      const double advantage = e.advantage[row][t], ratio = std::exp(micro.logp[r][t] - e.old_logp[row][t]);
      const bool clipped = advantage > 0 ? ratio > 1 + kClip : ratio < 1 - kClip;
      const double bound = advantage > 0 ? 1 + kClip : 1 - kClip;
      const double error = micro.value[r][t] - e.target[row][t];
      loss += (-advantage * (clipped ? bound : ratio) + 0.5 * error * error) / e.tokens;
      if (!clipped) micro.d_logp[r][t] = float(-advantage * ratio / e.tokens);
      micro.d_value[r][t] = float(error / e.tokens);
    }
  return loss;
}

void run(int argc, char** argv) {
  if (argc < 5) throw std::runtime_error("usage: custom_loop ACTOR REWARD_MODEL PROMPTS OUTPUT [STEPS]");
  const int64_t steps = argc > 5 ? std::atoll(argv[5]) : 30;
  if (std::filesystem::exists(argv[4])) throw std::runtime_error(std::string(argv[4]) + " exists");
  const dse::Engine engine;
  dse::Model actor = engine.load(argv[1], {.training = dse::Training{.learning_rate = 2e-3, .lora_rank = 8}});
  dse::Model critic = engine.load(argv[2], {.training = dse::Training{.learning_rate = 5e-4}});
  const dse::Model reward = engine.load(argv[2]);
  if (!actor.text()) throw std::runtime_error(std::string(argv[1]) + ": no tokenizer");
  const auto prompts = read_prompts(argv[3], *actor.text());
  for (int64_t step = 0; step < steps; ++step) {
    std::vector<dse::Tokens> batch;
    for (int64_t i = 0; i < kBatch; ++i) batch.push_back(prompts[size_t(step * kBatch + i) % prompts.size()]);
    const Experience e = collect(actor, critic, reward, batch, uint64_t(step));
    dse::StepResult last;
    for (int64_t epoch = 0; epoch < kEpochs; ++epoch)
      last = dse::train_step(&actor, &critic, e.replies, {.micro_batch_size = 16},
                             [&](dse::MicroBatch& micro) { return ppo_loss(e, micro); });
    std::printf("step %ld reward %.3f kl %.3f loss %.4f\n", long(step + 1), e.mean_reward, e.mean_kl, last.loss);
  }
  actor.save(argv[4]);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv), 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "custom_loop: %s\n", e.what());
    return 1;
  }
}
