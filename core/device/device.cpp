#include "device/device.h"

#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <spdlog/spdlog.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <tuple>
#include <vector>

#include "base/check.h"
#include "device/card.h"
#include "device/cuda.h"

namespace dsengine {
namespace {

// To a card by way of pages that its driver reads itself, so that what is queued there is not waited for.
template <class T>
at::Tensor uploaded(std::span<const T> values, at::ScalarType type, at::Device where) {
  const std::vector<int64_t> sizes{int64_t(values.size())};
  at::Tensor staged = where.is_cuda() ? at::empty(sizes, at::TensorOptions().dtype(type).pinned_memory(true))
                                      : Device::host().empty(sizes, type);
  std::ranges::copy(values, staged.mutable_data_ptr<T>());
  return staged.to(where, /*non_blocking=*/where.is_cuda());
}

at::Tensor selected_shape(const at::Tensor& from, int64_t dim, const at::Tensor& index) {
  auto sizes = from.sizes().vec();
  sizes[size_t(at::maybe_wrap_dim(dim, from.dim()))] = index.numel();
  return at::empty(sizes, from.options());
}

at::Tensor like(const at::Tensor& from) { return at::empty_like(from); }

at::Tensor& shape_of(const at::Tensor& from, at::Tensor& to) {
  to.resize_(from.sizes());
  return to;
}

at::Tensor chosen_shape(const at::Tensor& which, const at::Tensor& a, const at::Tensor& b) {
  const auto sizes = at::infer_size(at::infer_size(which.sizes(), a.sizes()), b.sizes());
  return at::empty(sizes, which.options().dtype(at::result_type(a, b)));
}

using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Maybe = std::optional<at::Tensor>;

// Of rows that are normalised over their last dimension.
Three normed_shapes(const at::Tensor& x, c10::SymIntArrayRef, const Maybe&, const Maybe&, double) {
  auto one_a_row = x.sizes().vec();
  one_a_row.back() = 1;
  return {at::empty_like(x), at::empty(one_a_row, x.options()), at::empty(one_a_row, x.options())};
}
Three normed_backward_shapes(const at::Tensor&, const at::Tensor& x, c10::SymIntArrayRef, const at::Tensor&,
                             const at::Tensor&, const Maybe& weight, const Maybe& bias, std::array<bool, 3> wanted) {
  const auto shape = [](bool asked, const at::Tensor& t) { return asked ? like(t) : at::Tensor(); };
  return {shape(wanted[0], x), shape(wanted[1], weight.value_or(at::Tensor())),
          shape(wanted[2], bias.value_or(at::Tensor()))};
}

}  // namespace

const Device& Device::host() {
  static const Device cpu(at::kCPU);
  return cpu;
}

const Device& Device::meta() {
  // What LibTorch has in Python alone.
  static const torch::Library shapes = [] {
    torch::Library library(torch::Library::IMPL, "aten", c10::DispatchKey::Meta, __FILE__, __LINE__);
    library.impl("index_select", TORCH_FN(selected_shape));
    library.impl("abs.out", TORCH_FN(shape_of));
    library.impl("relu", TORCH_FN(like));
    library.impl("where.self", TORCH_FN(chosen_shape));
    library.impl("native_layer_norm", TORCH_FN(normed_shapes));
    library.impl("native_layer_norm_backward", TORCH_FN(normed_backward_shapes));
    return library;
  }();
  static const Device meta(at::kMeta);
  return meta;
}

std::optional<int64_t> Device::free_memory() const {
  if (!where_.is_cuda()) return std::nullopt;
  return cuda_free_memory(where_.index());
}

std::unique_ptr<Replay> Device::record(const std::function<void()>& work) const {
  struct Again : Replay {
    explicit Again(std::function<void()> work) : work(std::move(work)) { run(); }
    void run() override { work(); }
    std::function<void()> work;
  };
  if (Card* const card = where_.is_cuda() ? opened_card() : nullptr) return card->record(work);
  return std::make_unique<Again>(work);
}

void* Device::stream() const {
  if (!where_.is_cuda()) return nullptr;
  return c10::impl::VirtualGuardImpl(where_.type()).getStream(where_).native_handle();
}

Device open_device(const std::string& name) {
  if (name == "cpu" || (name == "auto" && cuda_cards() == 0)) return Device(at::kCPU);
  if (name == "auto") try {
      return open_device("cuda");
    } catch (const UserError& error) {
      spdlog::warn("device auto=cpu reason=\"{}\"", error.what());
      return Device(at::kCPU);
    }
  constexpr std::string_view kCard = "cuda:";
  int index = 0;
  bool known = name == "cuda";
  if (name.starts_with(kCard)) {
    const char* const end = name.data() + name.size();
    const auto [parsed, error] = std::from_chars(name.data() + kCard.size(), end, index);
    known = error == std::errc() && parsed == end && index >= 0 && index < 128;
  }
  DSE_CHECK_USER(known, "device '{}' is none: cpu, cuda, cuda:0 (a card's number) or auto", name);
  open_cuda(index);
  return Device(at::Device(at::kCUDA, at::DeviceIndex(index)));
}

at::Tensor Device::empty(at::IntArrayRef sizes, at::ScalarType type) const { return at::empty(sizes, options(type)); }

at::Tensor Device::upload(std::span<const int64_t> values) const { return uploaded(values, at::kLong, where_); }

at::Tensor Device::upload(std::span<const float> values) const { return uploaded(values, at::kFloat, where_); }

at::Tensor Device::upload(std::span<const double> values) const { return uploaded(values, at::kDouble, where_); }

at::Tensor on_host(const at::Tensor& tensor) {
  if (tensor.is_meta()) return at::zeros(tensor.sizes(), tensor.options().device(at::kCPU));
  return tensor.detach().cpu().contiguous();
}

}  // namespace dsengine
