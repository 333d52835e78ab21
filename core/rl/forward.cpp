#include "rl/forward.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "base/check.h"
#include "memory/ledger.h"

namespace dsengine {

using at::Tensor;

Selection select(const Experience& e, const Device& device, bool critic) {
  std::vector<std::vector<int32_t>> own(e.rows.size());
  std::vector<std::span<const int32_t>> sequences;
  std::vector<int64_t> begin;
  for (size_t r = 0; r < e.rows.size(); ++r) {
    const ExperienceRow& row = *e.rows[r];
    const bool asked_otherwise = critic && !row.critic_prompt.empty();
    if (asked_otherwise) {
      own[r] = row.critic_prompt;
      own[r].insert(own[r].end(), row.tokens.begin() + row.answer_begin, row.tokens.end());
    }
    sequences.emplace_back(asked_otherwise ? own[r] : row.tokens);
    begin.push_back(asked_otherwise ? int64_t(row.critic_prompt.size()) : row.answer_begin);
  }
  Selection s{pack(device, sequences), {}, {}, {}};
  std::vector<int64_t> positions;
  for (size_t r = 0; r < e.rows.size(); ++r)
    for (int64_t i = 0; i < e.rows[r]->answer_size(); ++i) positions.push_back(s.batch.offsets[r] + begin[r] + i);
  s.at = device.upload(positions);
  s.before = s.at - 1;
  s.targets = s.batch.tokens.index_select(0, s.at);
  return s;
}

Outputs forward(const Model& model, const Selection& s, double temperature, bool entropy, bool value_after,
                bool adapted) {
  const Tensor hidden = model.hidden(s.batch, adapted);
  if (model.kind() == ModelKind::value) return {{}, {}, model.values(hidden, value_after ? s.at : s.before)};
  const auto [logp, ent] = model.log_prob(hidden, s.before, s.targets, temperature, entropy);
  return {logp, ent, {}};
}

void backward(const Outputs& out, const std::vector<float>& d_logp, const std::vector<float>& d_entropy,
              const std::vector<float>& d_value) {
  const MemoryScope scope(MemoryTag::activations);
  std::vector<Tensor> outputs, cotangents;
  const auto push = [&](const Tensor& output, const std::vector<float>& slopes) {
    if (!output.defined() || !output.requires_grad() || (slopes.empty() && output.numel() > 0)) return;
    DSE_CHECK(slopes.size() == size_t(output.numel()), "{} slopes of {} outputs", slopes.size(), output.numel());
    outputs.push_back(output);
    cotangents.push_back(Device::host().upload(slopes).to(output.device()));
  };
  push(out.logp, d_logp), push(out.entropy, d_entropy), push(out.value, d_value);
  if (!outputs.empty()) torch::autograd::backward(outputs, cotangents);
}

void to_column(const Tensor& from, std::vector<float>& to) {
  const Tensor host = on_host(from.detach().to(at::kFloat));
  to.assign(host.const_data_ptr<float>(), host.const_data_ptr<float>() + host.numel());
}

}  // namespace dsengine
