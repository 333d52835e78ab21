// Answers as the algorithms see them: ragged rows with float32 columns in host memory.
//
//   Experience experience;  experience.add_row(prompt, answer_tokens, mask, …);
//   experience.allocate(needs);                                  // columns
//   dse_batch batch = experience.view();                         // borrowed pointers for a plugin
//
// Legend: R rows, T answer tokens of all rows. Columns are [T] unless they say [R].
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "base/finish.h"
#include "dsengine/abi.h"

namespace dsengine {

struct ExperienceRow {
  std::vector<int32_t> tokens;           // prompt and answer
  int64_t answer_begin = 0;              // index of the first answer token
  std::vector<float> rollout_logp;       // of the answer's tokens; empty: not from a rollout
  std::vector<int32_t> critic_prompt{};  // in a critic's own words; empty: the prompt of `tokens`
  int64_t answer_size() const { return int64_t(tokens.size()) - answer_begin; }
};

struct Experience {
  std::vector<std::shared_ptr<const ExperienceRow>> rows;
  std::vector<int64_t> offsets{0};   // [R + 1]
  std::vector<int64_t> prompt;       // [R]
  std::vector<int32_t> finish;       // [R], as plugins see Finish
  std::vector<float> score, weight;  // [R]
  std::vector<int32_t> token;
  std::vector<float> mask, logp, entropy, value, old_logp, old_value, ref_logp, rollout_logp, advantage, target;
  std::vector<std::vector<float>> own;

  int64_t row_count() const { return int64_t(rows.size()); }
  int64_t token_count() const { return offsets.back(); }
  // What the rows and columns hold.
  int64_t bytes() const;

  // Appends a row and its entries of offsets, prompt, finish, score (0), weight, token and mask.
  void add_row(ExperienceRow row, int64_t prompt_id, Finish how, double row_weight, std::span<const uint8_t> row_mask);
  // Sizes the columns that the algorithm asks for, zeroed; rollout_logp is filled. UserError where a row has none.
  void allocate(const dse_needs& needs);
  // Some rows, in the order given. Their tokens are shared; their columns are copied, for a plugin reads them gapless.
  Experience subset(std::span<const int64_t> which) const;
  // Without the rows of prompts that have fewer than `size` answers left.
  Experience whole_groups(int64_t size) const;
  // Columns that are not allocated are null. So are old_logp and rollout_logp, which a correction reads too, where they
  // are not among `columns` (DSE_COLUMN_…). `context` and the functions are filled by the caller.
  dse_batch view(uint32_t columns = ~uint32_t{0});

 private:
  std::vector<float*> own_pointers_;
};

}  // namespace dsengine
