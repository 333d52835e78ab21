#include "model/hf/initial_pairs.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "base/check.h"
#include "model/hf/stored_tensors.h"

namespace dsengine {

void take_out_initial_pairs(Model& model, const std::string& where) {
  at::NoGradGuard no_grad;
  std::error_code gone;
  DSE_CHECK_USER(!std::filesystem::current_path(gone).empty(),  // MKL's decompositions would end the process
                 "the working directory does not exist any more: change to another");
  const Adapter& adapter = *model.adapter();
  const std::string& init = adapter.settings().init;
  std::map<std::string, LowRank> pairs;
  for (const auto& [module, pair] : adapter.modules()) pairs.emplace(module + ".weight", pair);
  const auto take_out = [&](const StoredTensor& stored) {
    const auto found = pairs.find(stored.name);
    if (found == pairs.end()) return;
    const bool transposed = stored.pieces[0].spec->transposed;
    DSE_CHECK_USER(init != "olora" || !transposed,
                   "{}: init_lora_weights = 'olora' on {}, which lies transposed, is "
                   "not supported",
                   where, stored.name);
    const at::Tensor weight = transposed ? stored.joined().t() : stored.joined();
    const int64_t r = found->second.rank, most = std::min(weight.size(0), weight.size(1));
    DSE_CHECK_USER(r <= most, "{}: rank {} of {}, which has the rank {}", where, r, stored.name, most);
    at::Tensor initial;
    if (init == "pissa") {
      const auto [u, s, v] = at::linalg_svd(weight, false);
      initial = at::matmul(u.narrow(1, 0, r) * s.narrow(0, 0, r), v.narrow(0, 0, r));
    } else {
      const auto [q, upper] = at::linalg_qr(weight);
      initial = adapter.scale(found->second) * at::matmul(q.narrow(1, 0, r), upper.narrow(0, 0, r));
    }
    stored.split(weight - initial);
  };
  model.each_section(Model::Access::write,
                     [&](const auto& tensors) { std::ranges::for_each(stored_tensors(pieces_of(tensors)), take_out); });
}

}  // namespace dsengine
