// Makes examples of the records of one source: each a prompt and what may follow it, as the stage wants them.
//
//   ExampleEncoder encoder(text, stage.data, DSE_SOURCE_RECORDS);
//   if (part.holds(opening_hash(data, record)) && !is_labelled_false(record)) use(encoder.encode(data, record));
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plugin/instance.h"
#include "rl/example.h"
#include "run/config.h"

namespace dsengine {

// What a record is known by in splits: conversations with the same opening are never torn apart, and it does not matter
// what a stage reads of them.
uint64_t opening_hash(const DatasetInstance& data, const dse_record& record);

// Whether the record's other fields label it as one not to be imitated, as data for KTO do ("label": false). A label
// that may mean the same in other words, beside an answer, is a UserError.
bool is_labelled_false(const dse_record& record);

class ExampleEncoder {
 public:
  // source: DSE_SOURCE_…. Text and configuration are borrowed.
  ExampleEncoder(const TextModel& text, const DataConfig& config, uint32_t source)
      : text_(text), config_(config), source_(source) {}

  // UserError where the record is of no kind that the source takes, or nothing of it is left.
  Example encode(const DatasetInstance& data, const dse_record& record);
  bool prompt_cut() const { return prompt_cut_; }  // of the last encode: the prompt was too long

 private:
  void set_prompt(Example& e, const std::vector<ChatMessage>& turns);
  void cut_prompt(Example& e);
  AnswerTokens answer(const std::vector<ChatMessage>& turns, const std::string& content) const;
  void plain_text(Example& e, const std::string& text) const;
  void conversation(Example& e, const std::vector<ChatMessage>& turns);

  const TextModel& text_;
  const DataConfig& config_;
  uint32_t source_;
  bool prompt_cut_ = false;
};

}  // namespace dsengine
