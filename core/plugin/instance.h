// A created algorithm, dataset or reward: calls into its plugin, with failures as UserErrors and structs at
// this host's size. Each is used by one thread at a time and is destroyed with its object.
//
//   AlgorithmInstance ppo(registry.find(DSE_ALGORITHM, "ppo"), options);
//   if (ppo.needs().columns & DSE_COLUMN_REF_LOGP) …
//   ppo.prepare(batch), ppo.loss(batch, gradients);  // UserError "algorithm 'ppo' (libdse_ppo.so): loss: …"
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plugin/host.h"
#include "plugin/item.h"
#include "plugin/options.h"

namespace dsengine {

struct Destroy {
  void (*destroy)(void*);
  void operator()(void* self) const {
    const FloatGuard guard("the end of an item");
    destroy(self);
  }
};
using SelfPointer = std::unique_ptr<void, Destroy>;

// Instances refer to their item, which a registry keeps.
class AlgorithmInstance {
 public:
  AlgorithmInstance(const Item& item, const OptionSet& options);

  const dse_needs& needs() const { return needs_; }  // checked: known values that fit each other
  void prepare(const dse_batch& batch);              // nothing where the algorithm has none
  void loss(const dse_batch& batch, const dse_gradients& gradients);
  bool has_state() const { return item_->algorithm().save != nullptr; }
  std::string save() const;  // "" where it has no state
  void load(std::string_view state);

 private:
  const Item* item_;
  SelfPointer self_;
  dse_needs needs_;
};

// Rows that stay together however a batch is cut into micro-batches: a pair's two, whatever the loss is of; else one.
int64_t rows_together(const dse_needs& needs);

// The number of unit losses that `needs.form` asks of a batch.
int64_t unit_count(const dse_needs& needs, int64_t rows, int64_t tokens);

class DatasetInstance {
 public:
  DatasetInstance(const Item& item, const OptionSet& options, const std::filesystem::path& path);

  int64_t size() const;
  // Its strings live until the next get. The kind is known and the fields it promises are set.
  dse_record get(int64_t index);
  // The messages of a record, brought to size.
  std::vector<dse_message> messages(const dse_record& record) const;

 private:
  const Item* item_;
  SelfPointer self_;
};

class RewardInstance {
 public:
  RewardInstance(const Item& item, const OptionSet& options);

  bool needs_model() const { return item_->reward().needs_model != 0; }
  // A score of NaN: that answer's item failed.
  std::vector<float> score(std::span<const dse_answer> answers);

 private:
  const Item* item_;
  SelfPointer self_;
};

}  // namespace dsengine
