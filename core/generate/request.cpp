#include "generate/request.h"

#include "base/check.h"

namespace dsengine {

void check_request(const Model& model, std::span<const int32_t> prompt, int64_t max_new_tokens) {
  const ModelGraph& graph = model.graph();
  DSE_CHECK_USER(!prompt.empty(), "an empty prompt: give at least one token");
  DSE_CHECK_USER(max_new_tokens > 0, "max_new_tokens must be at least 1, is {}", max_new_tokens);
  DSE_CHECK_USER(max_new_tokens <= INT32_MAX, "max_new_tokens must be at most {}, is {}", INT32_MAX, max_new_tokens);
  const int64_t length = int64_t(prompt.size()) + max_new_tokens;
  DSE_CHECK_USER(graph.max_positions == 0 || length <= graph.max_positions,
                 "{} prompt tokens and {} new ones exceed the model's {} positions", prompt.size(), max_new_tokens,
                 graph.max_positions);
  DSE_CHECK_USER(
      graph.long_after == 0 || length <= graph.long_after || int64_t(prompt.size()) > graph.long_after,
      "{} prompt tokens and {} new ones cross the length of {} beyond which this model's positions turn otherwise, so "
      "that what was computed does not hold: keep both within it, or begin beyond it",
      prompt.size(), max_new_tokens, graph.long_after);
  for (const auto id : prompt)
    DSE_CHECK_USER(id >= 0 && id < graph.vocabulary, "token id {} is outside the vocabulary of {}", id,
                   graph.vocabulary);
}

}  // namespace dsengine
