#include "rl/experience.h"

#include <algorithm>

#include "base/check.h"

namespace dsengine {

namespace {

using Column = std::vector<float> Experience::*;
constexpr Column kTokenColumns[] = {&Experience::logp,         &Experience::entropy,   &Experience::value,
                                    &Experience::old_logp,     &Experience::old_value, &Experience::ref_logp,
                                    &Experience::rollout_logp, &Experience::advantage, &Experience::target};

}  // namespace

void Experience::add_row(ExperienceRow row, int64_t prompt_id, Finish how, double row_weight,
                         std::span<const uint8_t> row_mask) {
  DSE_CHECK(int64_t(row_mask.size()) == row.answer_size(), "{} mask entries", row_mask.size());
  offsets.push_back(offsets.back() + row.answer_size());
  prompt.push_back(prompt_id);
  finish.push_back(int32_t(how));
  score.push_back(0);
  weight.push_back(float(row_weight));
  token.insert(token.end(), row.tokens.begin() + row.answer_begin, row.tokens.end());
  mask.insert(mask.end(), row_mask.begin(), row_mask.end());
  rows.push_back(std::make_shared<const ExperienceRow>(std::move(row)));
}

void Experience::allocate(const dse_needs& needs) {
  const auto size = size_t(token_count());
  const auto want = [&](Column column, uint32_t bit) {
    if (needs.columns & bit) (this->*column).assign(size, 0);
  };
  want(&Experience::logp, DSE_COLUMN_LOGP);
  want(&Experience::entropy, DSE_COLUMN_ENTROPY);
  want(&Experience::value, DSE_COLUMN_VALUE);
  want(&Experience::old_logp, DSE_COLUMN_OLD_LOGP);
  want(&Experience::old_value, DSE_COLUMN_OLD_VALUE);
  want(&Experience::ref_logp, DSE_COLUMN_REF_LOGP);
  want(&Experience::rollout_logp, DSE_COLUMN_ROLLOUT_LOGP);
  if (needs.columns & DSE_COLUMN_ROLLOUT_LOGP)
    for (size_t r = 0; r < rows.size(); ++r) {
      const auto& told = rows[r]->rollout_logp;
      DSE_CHECK_USER(int64_t(told.size()) == rows[r]->answer_size(),
                     "answer {} has {} tokens and {} log-probabilities of the policy that gave it, which are read", r,
                     rows[r]->answer_size(), told.size());
      std::ranges::copy(told, rollout_logp.begin() + offsets[r]);
    }
  advantage.assign(size, 0), target.assign(size, 0);
  own.assign(needs.own_columns, std::vector<float>(size, 0));
}

int64_t Experience::bytes() const {
  const auto of = [](const auto& column) { return int64_t(column.size() * sizeof(column[0])); };
  int64_t sum = of(offsets) + of(prompt) + of(finish) + of(score) + of(weight) + of(token) + of(mask);
  for (const auto column : kTokenColumns) sum += of(this->*column);
  for (const auto& column : own) sum += of(column);
  for (const auto& row : rows) sum += of(row->tokens) + of(row->rollout_logp) + of(row->critic_prompt);
  return sum;
}

Experience Experience::subset(std::span<const int64_t> which) const {
  Experience part;
  part.own.resize(own.size());
  const auto append = [](auto& to, const auto& from, int64_t begin, int64_t end) {
    if (!from.empty()) to.insert(to.end(), from.begin() + begin, from.begin() + end);
  };
  for (const auto r : which) {
    const int64_t begin = offsets[size_t(r)], end = offsets[size_t(r) + 1];
    part.rows.push_back(rows[size_t(r)]);
    part.offsets.push_back(part.offsets.back() + end - begin);
    append(part.prompt, prompt, r, r + 1), append(part.finish, finish, r, r + 1);
    append(part.score, score, r, r + 1), append(part.weight, weight, r, r + 1);
    append(part.token, token, begin, end), append(part.mask, mask, begin, end);
    for (const auto column : kTokenColumns) append(part.*column, this->*column, begin, end);
    for (size_t i = 0; i < own.size(); ++i) append(part.own[i], own[i], begin, end);
  }
  return part;
}

Experience Experience::whole_groups(int64_t size) const {
  std::vector<int64_t> kept;
  for (int64_t first = 0, last = 0; first < row_count(); first = last) {
    while (last < row_count() && prompt[size_t(last)] == prompt[size_t(first)]) ++last;
    for (int64_t r = first; r < last && last - first >= size; ++r) kept.push_back(r);
  }
  return int64_t(kept.size()) == row_count() ? *this : subset(kept);
}

dse_batch Experience::view(uint32_t columns) {
  const auto data = [](auto& column) { return column.empty() ? nullptr : column.data(); };
  const auto asked = [&](uint32_t bit, auto& column) { return columns & bit ? data(column) : nullptr; };
  own_pointers_.clear();
  for (auto& column : own) own_pointers_.push_back(column.data());
  dse_batch b{};
  b.struct_size = sizeof b;
  b.own_column_count = uint32_t(own.size());
  b.rows = row_count(), b.tokens = token_count();
  b.offsets = offsets.data(), b.prompt = prompt.data(), b.finish = finish.data();
  b.score = score.data(), b.row_weight = weight.data(), b.token = token.data(), b.mask = mask.data();
  b.logp = data(logp), b.entropy = data(entropy), b.value = data(value);
  b.old_logp = asked(DSE_COLUMN_OLD_LOGP, old_logp), b.old_value = data(old_value), b.ref_logp = data(ref_logp);
  b.rollout_logp = asked(DSE_COLUMN_ROLLOUT_LOGP, rollout_logp);
  b.advantage = data(advantage), b.target = data(target);
  b.own = own_pointers_.data();
  return b;
}

}  // namespace dsengine
