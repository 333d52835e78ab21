// Linears of layers that are never trained, kept narrower than they are read, or elsewhere: a section's are fetched
// before it runs and let go of after it. So a model takes the memory of what is kept, and that of one section.
//
//   FrozenWeights frozen(device, {.format = FrozenFormat::nf4});
//   frozen.add(s, weights.sections[s]);                                // a storage without matrices
//   { const FrozenWeights::Hold hold(&frozen, s);  weights.sections[s].block(0); }
//
// Holds of a section nest and may end in any order. Copies share what is kept until one of them writes. Borrows the
// device and the storages, which do not move. One thread.
#pragma once
#include <map>
#include <memory>
#include <utility>

#include "memory/offload.h"
#include "param/kept_matrices.h"
#include "param/storage.h"

namespace dsengine {

class FrozenWeights {
 public:
  FrozenWeights(const Device& device, FrozenSettings settings) : device_(device), settings_(settings) {}
  FrozenWeights(const FrozenWeights&) = delete;
  FrozenWeights& operator=(const FrozenWeights&) = delete;

  void add(size_t section, ParamStorage& unit);
  // What another keeps of the section, for a storage of the same layout.
  void share(size_t section, ParamStorage& unit, const FrozenWeights& other);
  bool has(size_t section) const { return units_.contains(section); }
  FrozenSettings settings() const { return settings_; }

  // Of a section that has none nothing is done, here and below.
  void hold(size_t section);
  void release(size_t section) noexcept;
  // The buffer of what was released, which is kept for the next section.
  void let_go_buffer() { spare_ = at::Tensor(); }
  // The matrices of a section that is held become what is kept.
  void keep(size_t section);

  class Hold {
   public:
    Hold(FrozenWeights* frozen, size_t section) : frozen_(frozen), section_(section) {  // null: nothing is done
      if (frozen_) frozen_->hold(section_);
    }
    ~Hold() {
      if (frozen_) frozen_->release(section_);
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    FrozenWeights* frozen_;
    size_t section_;
  };

  // What was fetched since the last call: bytes as they are read.
  Traffic take_traffic() { return std::exchange(traffic_, {}); }

 private:
  struct Unit {
    ParamStorage* storage;
    std::shared_ptr<KeptMatrices> kept;
    int64_t holds = 0;
  };
  at::Tensor buffer(int64_t numel);
  std::shared_ptr<KeptMatrices> new_home(const ParamLayout& layout) const;

  const Device& device_;
  FrozenSettings settings_;
  std::map<size_t, Unit> units_;
  at::Tensor spare_;
  Traffic traffic_;
};

}  // namespace dsengine
