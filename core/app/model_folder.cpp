#include "app/model_folder.h"

#include "base/check.h"
#include "files/hf_directory.h"

namespace dsengine {

void check_base(const ModelFolder& folder) {
  DSE_CHECK_USER(folder.base.empty() || is_adapter(folder.directory),
                 "--base {}: {} is no adapter (it has no adapter_config.json): it has no base", folder.base,
                 folder.directory);
}

dse::Model load_model(const dse::Engine& engine, const ModelFolder& folder, const char* option, dse::HeadKind head,
                      const std::string& dtype) {
  check_model_directory(folder.directory, option);
  check_base(folder);
  return engine.load(folder.directory, {.head = head, .rounded_to_bf16 = dtype == "bf16", .base = folder.base});
}

}  // namespace dsengine
