// Weights of layers that are kept elsewhere than they are read, or narrower: a section's are fetched before it runs and
// let go of after it. So a model takes the memory of what is kept, and that of one section.
//
//   StreamedWeights streamed(kernels, {.format = FrozenFormat::nf4}, at::kFloat);
//   streamed.add(s, weights.sections[s]);                              // a storage without matrices, or a streamed one
//   { const StreamedWeights::Hold hold(&streamed, s);  weights.sections[s].block(0); }
//
// Of a storage without matrices these are kept here; copies of a model share them until one of them writes. A streamed
// storage has a home, which its optimizer changes while nobody holds it. Holds of a section nest and may end in any
// order. Borrows the kernels and the storages, which do not move. One thread.
//
// Where weights come from the host's memory to a device of its own, those of the next section (upwards from the first,
// downwards from the last) are brought while this one runs, and take the memory of one section more.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "base/stream_settings.h"
#include "device/copy_lane.h"
#include "memory/offload.h"
#include "memory/spare_buffer.h"
#include "param/kept_matrices.h"
#include "param/storage.h"

namespace dsengine {

class StreamedWeights {
 public:
  // dtype: that what is fetched is read as.
  StreamedWeights(const Kernels& kernels, StreamSettings settings, at::ScalarType dtype);
  StreamedWeights(const StreamedWeights&) = delete;
  StreamedWeights& operator=(const StreamedWeights&) = delete;

  // like: null, or of a model whose storages have the same layouts: what is kept of its section is shared.
  void add(size_t section, ParamStorage& unit, const StreamedWeights* like = nullptr);
  bool has(size_t section) const { return units_.contains(section); }
  StreamSettings settings() const { return settings_; }

  // Of a section that has none nothing is done, here and below.
  void hold(size_t section);
  void release(size_t section) noexcept;
  // Whatever is held still: a backward that threw lets go of nothing. A forward begins with it.
  void release_all() noexcept;
  // The buffer of what was released, which is kept for the next section.
  void let_go_buffer() noexcept;
  // The values of a section that is held become what is kept.
  void keep(size_t section);

  class Hold {
   public:
    Hold(StreamedWeights* streamed, size_t section) : streamed_(streamed), section_(section) {  // null: nothing is done
      if (streamed_) streamed_->hold(section_);
    }
    ~Hold() {
      if (streamed_) streamed_->release(section_);
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    StreamedWeights* streamed_;
    size_t section_;
  };

  // What was fetched since the last call.
  Traffic take_traffic() { return std::exchange(traffic_, {}); }

 private:
  struct Unit {
    ParamStorage* storage;
    std::shared_ptr<KeptMatrices> kept;  // null: the storage has a home
    int64_t holds = 0;
  };
  std::shared_ptr<KeptMatrices> new_home(const ParamLayout& layout) const;
  void fetch(const Unit& unit, const at::Tensor& values, bool beside);
  // What is on its way to the section; undefined where that is nothing.
  at::Tensor take_ahead(size_t section);
  void bring_ahead(size_t section);
  void leave_ahead() noexcept;

  const Device& device_;
  StreamSettings settings_;
  const at::ScalarType dtype_;
  std::shared_ptr<const ops::RowCodes> codes_;  // null: as it is read
  std::map<size_t, Unit> units_;
  SpareBuffer spare_;
  Traffic traffic_;
  const bool looks_ahead_;
  std::optional<size_t> last_{};  // the section that was held last, since a forward began
  struct Ahead {
    size_t section;
    at::Tensor values;
  };
  std::optional<Ahead> ahead_{};
  CopyLane lane_;  // last: it is joined before values go
};

}  // namespace dsengine
