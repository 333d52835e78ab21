#include "model/hf/save.h"

#include <ATen/ATen.h>

#include "files/hf_directory.h"
#include "files/weights.h"
#include "model/hf/architecture.h"
#include "model/hf/stored_tensors.h"
#include "text/tokenizer_files.h"

namespace dsengine {

namespace fs = std::filesystem;

namespace {

void save_config(const Model& model, const fs::path& directory, Dtype dtype) {
  Json config = model.config();
  config["architectures"] = Json::array({architecture_for(model.graph(), model.kind())});
  config.erase("torch_dtype"), config.erase("quantization_config");
  config["dtype"] = dtype == Dtype::BF16 ? "bfloat16" : dtype == Dtype::F16 ? "float16" : "float32";
  if (model.kind() == ModelKind::value) {
    config["id2label"] = Json{{"0", "LABEL_0"}};
    config["label2id"] = Json{{"LABEL_0", 0}};
  } else {
    config.erase("id2label"), config.erase("label2id");
  }
  write_text(directory / "config.json", config.dump(2) + "\n");
}

// One tensor at a time, with what an adapter adds to it.
void save_weights(const Model& model, const fs::path& directory, const SaveOptions& options) {
  SavePlan plan{.max_shard_bytes = options.max_shard_bytes};
  for (const auto& tensor : stored_tensors(pieces_of(model.tensors())))
    plan.tensors.push_back({tensor.name, options.dtype, tensor.shape()});
  WeightWriter writer(directory, plan);
  const auto write = [&](StoredTensor tensor, const std::vector<Model::NamedTensor>& section) {
    for (size_t i = 0; model.adapter() && i < tensor.pieces.size(); ++i) {
      const auto& named = section[tensor.indices[i]];
      if (named.section == model.graph().sections.size()) continue;  // the head
      const at::Tensor delta = model.adapter()->delta(named.section, named.block, named.part);
      if (delta.defined())
        tensor.pieces[i].tensor = tensor.pieces[i].tensor + delta.view(tensor.pieces[i].tensor.sizes());
    }
    const at::Tensor whole = on_host(tensor.joined());
    writer.write(tensor.name, {whole.const_data_ptr<float>(), size_t(whole.numel())});
  };
  model.each_section(Model::Access::read, [&](const auto& section) {
    for (const auto& tensor : stored_tensors(pieces_of(section))) write(tensor, section);
  });
  writer.close();
}

}  // namespace

void save_model(const Model& model, const fs::path& directory, const fs::path& tokenizer_from,
                const SaveOptions& options) {
  save_config(model, directory, options.dtype);
  save_weights(model, directory, options);
  if (!tokenizer_from.empty()) copy_tokenizer_files(tokenizer_from, directory);
  save_generation_settings(model.origin().directory, model.origin().base, options.ends, directory);
}

}  // namespace dsengine
