#include "plugin/instance.h"

#include <cmath>
#include <limits>

#include "base/check.h"
#include "plugin/handed.h"
#include "plugin/host.h"
#include "plugin/normalise.h"

namespace dsengine {
namespace {

// make: create or open of a table, as a call that fills a pointer.
template <class Make>
SelfPointer make_self(const Item& item, const char* what, void (*destroy)(void*), const Make& make) {
  void* self = nullptr;
  make(fmt::format("{}: {}", item.label(), what), &self);
  // An item without state may leave self NULL; destroy is then not called.
  return {self, Destroy{destroy}};
}

// "" or why these needs, of a plugin of that minor, make no sense.
std::string needs_fault(const dse_needs& n, uint32_t minor) {
  constexpr uint32_t roles = DSE_ACTOR | DSE_REFERENCE | DSE_CRITIC | DSE_REWARD;
  const uint32_t columns = 2 * (minor < 3 ? DSE_COLUMN_SCORE : DSE_COLUMN_ROLLOUT_LOGP) - 1;
  const auto asks = [&](uint32_t mask) { return (n.columns & mask) != 0; };
  if (n.roles == 0 || (n.roles & ~roles)) return fmt::format("roles {} are not made of DSE_ACTOR …", n.roles);
  if (n.trained == 0) return "it trains nothing";
  if (n.trained & ~n.roles) return "it trains a role that it does not have";
  if (n.trained & DSE_REFERENCE) return "it trains the reference";
  if (n.source > DSE_SOURCE_PAIRS) return fmt::format("source {} is unknown", n.source);
  if (n.form > DSE_FORM_RAW) return fmt::format("form {} is unknown", n.form);
  if (n.normalisation > DSE_NORM_CONSTANT) return fmt::format("normalisation {} is unknown", n.normalisation);
  if (n.form == DSE_FORM_PAIR && n.source != DSE_SOURCE_PAIRS) return "pair losses need pairs as source";
  const bool by_token = n.normalisation == DSE_NORM_TOKENS || n.normalisation == DSE_NORM_ROW_TOKEN_MEAN;
  if (by_token && (n.form == DSE_FORM_ROW || n.form == DSE_FORM_PAIR))
    return "row and pair losses are normalised by rows or a constant";
  if (n.normalisation == DSE_NORM_CONSTANT && !(n.normalisation_constant > 0))
    return "normalisation_constant is not above 0";
  if (n.columns & ~columns) return fmt::format("columns {} are not made of DSE_COLUMN_…", n.columns);
  constexpr uint32_t of_actor = DSE_COLUMN_LOGP | DSE_COLUMN_ENTROPY | DSE_COLUMN_OLD_LOGP | DSE_COLUMN_ROLLOUT_LOGP;
  if (asks(of_actor) && !(n.roles & DSE_ACTOR)) return "it reads columns of an actor that it does not have";
  if (asks(DSE_COLUMN_VALUE) && !(n.roles & DSE_CRITIC) && !(n.trained & DSE_REWARD))
    return "it reads values without a critic or a trained reward model";
  if (asks(DSE_COLUMN_OLD_VALUE) && !(n.roles & DSE_CRITIC)) return "it reads old values without a critic";
  if (asks(DSE_COLUMN_REF_LOGP) && !(n.roles & DSE_REFERENCE)) return "it reads ref_logp without a reference";
  if (asks(DSE_COLUMN_SCORE) && !(n.roles & DSE_REWARD)) return "it reads scores without a reward";
  if (asks(DSE_COLUMN_ROLLOUT_LOGP) && n.source != DSE_SOURCE_ROLLOUT) return "it reads rollout_logp without a rollout";
  if (n.own_columns > 64) return fmt::format("{} own columns are more than 64", n.own_columns);
  if (n.group_size < 1) return fmt::format("group_size {} is below 1", n.group_size);
  return "";
}

// "" or which field a record of its kind lacks.
std::string record_fault(const dse_record& r) {
  const bool asked = r.prompt || r.message_count > 0;
  if (r.message_count < 0 || (r.message_count > 0 && !r.messages)) return "its messages are missing";
  switch (r.kind) {
    case DSE_RECORD_TEXT:
      return r.text ? "" : "text is NULL";
    case DSE_RECORD_MESSAGES:
      return r.message_count > 0 ? "" : "it has no messages";
    case DSE_RECORD_PROMPT:
      return asked ? "" : "it has neither prompt nor messages";
    case DSE_RECORD_COMPLETION:
      return asked && r.completion ? "" : "it lacks its prompt or completion";
    case DSE_RECORD_PAIR:
      return asked && r.chosen && r.rejected ? "" : "it lacks its prompt, chosen or rejected";
    default:
      return fmt::format("kind {} is unknown", r.kind);
  }
}

}  // namespace

AlgorithmInstance::AlgorithmInstance(const Item& item, const OptionSet& options)
    : item_(&item),
      self_(make_self(item, "create", item.algorithm().destroy, [&](const std::string& context, void** self) {
        call_plugin(context, item.algorithm().create, options.values(), self);
      })) {
  const auto context = item.label() + ": needs";
  dse_needs raw{};
  raw.struct_size = sizeof raw;
  call_plugin(context, item.algorithm().needs, self_.get(), &raw);
  needs_ = read_struct<dse_needs>(&raw, context);
  const auto fault = needs_fault(needs_, item.abi_minor);
  DSE_CHECK_USER(fault.empty(), "{}: {}; mend what the plugin declares", context, fault);
}

void AlgorithmInstance::prepare(const dse_batch& batch) {
  const Handed<dse_batch> handed({&batch, 1}, handed_size<dse_batch>(item_->abi_minor));
  if (item_->algorithm().prepare)
    call_plugin(item_->label() + ": prepare", item_->algorithm().prepare, self_.get(), handed.data());
}

void AlgorithmInstance::loss(const dse_batch& batch, const dse_gradients& gradients) {
  const Handed<dse_batch> handed({&batch, 1}, handed_size<dse_batch>(item_->abi_minor));
  const Handed<dse_gradients> filled({&gradients, 1}, handed_size<dse_gradients>(item_->abi_minor));
  // What is filled are the arrays that it points to.
  call_plugin(item_->label() + ": loss", item_->algorithm().loss, self_.get(), handed.data(),
              const_cast<dse_gradients*>(filled.data()));
}

std::string AlgorithmInstance::save() const {
  if (!has_state()) return "";
  const auto context = item_->label() + ": save";
  int64_t size = 0;
  call_plugin(context, item_->algorithm().save, self_.get(), nullptr, &size);
  DSE_CHECK_USER(size >= 0, "{}: announced {} bytes; ask the plugin's author", context, size);
  std::string state(static_cast<size_t>(size), '\0');
  int64_t written = size;
  if (size > 0) call_plugin(context, item_->algorithm().save, self_.get(), state.data(), &written);
  DSE_CHECK_USER(written == size, "{}: announced {} bytes but wrote {}; ask the plugin's author", context, size,
                 written);
  return state;
}

void AlgorithmInstance::load(std::string_view state) {
  if (has_state())
    call_plugin(item_->label() + ": load", item_->algorithm().load, self_.get(), state.data(),
                static_cast<int64_t>(state.size()));
  else
    DSE_CHECK_USER(state.empty(),
                   "{}: a checkpoint holds state of it, but this version has none; use the version "
                   "that wrote it",
                   item_->label());
}

int64_t rows_together(const dse_needs& needs) { return needs.source == DSE_SOURCE_PAIRS ? 2 : 1; }

int64_t unit_count(const dse_needs& needs, int64_t rows, int64_t tokens) {
  switch (needs.form) {
    case DSE_FORM_TOKEN:
      return tokens;
    case DSE_FORM_ROW:
      return rows;
    case DSE_FORM_PAIR:
      return rows / 2;
    default:
      return 1;
  }
}

DatasetInstance::DatasetInstance(const Item& item, const OptionSet& options, const std::filesystem::path& path)
    : item_(&item), self_(make_self(item, "open", item.dataset().close, [&](const std::string& context, void** self) {
        call_plugin(context, item.dataset().open, options.values(), path.c_str(), self);
      })) {}

int64_t DatasetInstance::size() const {
  int64_t records = -1;
  call_plugin(item_->label() + ": size", item_->dataset().size, self_.get(), &records);
  DSE_CHECK_USER(records >= 0, "{}: size is {}; ask the plugin's author", item_->label(), records);
  return records;
}

dse_record DatasetInstance::get(int64_t index) {
  const auto context = fmt::format("{}: record {}", item_->label(), index);
  dse_record raw{};
  raw.struct_size = sizeof raw;
  raw.weight = 1;
  call_plugin(context, item_->dataset().get, self_.get(), index, &raw);
  const auto record = read_struct<dse_record>(&raw, context);
  const auto fault = record_fault(record);
  DSE_CHECK_USER(fault.empty(), "{}: {}; ask the plugin's author", context, fault);
  return record;
}

std::vector<dse_message> DatasetInstance::messages(const dse_record& record) const {
  return read_array<dse_message>(record.messages, static_cast<uint32_t>(record.message_count),
                                 item_->label() + ": messages");
}

RewardInstance::RewardInstance(const Item& item, const OptionSet& options)
    : item_(&item),
      self_(make_self(item, "create", item.reward().destroy, [&](const std::string& context, void** self) {
        call_plugin(context, item.reward().create, options.values(), self);
      })) {}

std::vector<float> RewardInstance::score(std::span<const dse_answer> answers) {
  // NaN beforehand: an answer that the plugin skips counts as failed, not as 0.
  std::vector<float> scores(answers.size(), std::numeric_limits<float>::quiet_NaN());
  const Handed<dse_answer> handed(answers, handed_size<dse_answer>(item_->abi_minor));
  call_plugin(item_->label() + ": score", item_->reward().score, self_.get(), handed.data(),
              static_cast<int64_t>(answers.size()), scores.data());
  return scores;
}

}  // namespace dsengine
