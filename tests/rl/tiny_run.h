// Runs of a model of one layer, drawn from the seed, on a few records of the tiny task, each in a folder of its own.
//
//   TinyRun tiny;
//   const RunConfig config = tiny.config(kSftStage, {"max_steps=3"});
//   LogWatch log("\"step\":2,");                         // a stop is asked for once the log holds this
//   …
//   EXPECT_EQ(steps_of(config.output_dir / "sft"), …);   // metrics.jsonl without times
#pragma once
#include <fstream>

#include "../model/golden_models.h"
#include "base/log_watch.h"
#include "plugin/fixtures.h"
#include "run/config_reader.h"

namespace dsengine {

inline constexpr const char* kSftStage = R"(
[[stage]]
name = "sft"
algorithm = "sft"
learning_rate = 1e-2
ema_decay = 0.8
data.sources = [{ path = "sft.jsonl" }]
)";
inline constexpr const char* kRewardStage = R"(
[[stage]]
name = "reward"
algorithm = "reward"
learning_rate = 1e-2
data.sources = [{ path = "pairs.jsonl" }]
)";
inline constexpr const char* kPpoStage = R"(
[[stage]]
name = "ppo"
algorithm = "ppo"
learning_rate = 1e-2
rollout = { batch_size = 4, max_response_length = 6 }
data.sources = [{ path = "prompts.jsonl" }]
)";

class TinyRun {
 public:
  TinyRun() {
    const auto tiny = folder_of(DSE_SOURCE_DIR, "examples/tiny");
    std::filesystem::copy(tiny / "model", model());
    Json config = read_json(model() / "config.json");
    config["hidden_size"] = 16, config["intermediate_size"] = 24, config["num_hidden_layers"] = 1;
    config["num_attention_heads"] = 2, config["num_key_value_heads"] = 1, config["head_dim"] = 8;
    config["initializer_range"] = 0.2;  // so that answers say something of their prompts
    write_text(model() / "config.json", config.dump());
    for (const char* name : {"sft.jsonl", "pairs.jsonl", "prompts.jsonl"}) {
      std::ifstream from(tiny / "data" / name);
      std::string lines, line;
      for (int i = 0; i < 24 && std::getline(from, line); ++i) lines += line + "\n";
      write_text(path() / name, lines);
    }
  }

  const std::filesystem::path& path() const { return folder_.path(); }
  std::filesystem::path model() const { return path() / "model"; }

  // stages: [[stage]] tables. The run's folder is path() / "run", unless a set says another.
  RunConfig config(const std::string& stages, const std::vector<std::string>& sets = {}) const {
    write_text(path() / "run.toml", std::string("seed = 5\ntensorboard = false\n") +
                                        "[model]\nactor = \"model\"\ninit = \"random\"\n" + stages);
    std::vector<std::string> all{elsewhere("run"), "max_steps=2", "mini_batch_size=4",        "schedule=constant",
                                 "eval_every=1",   "eval_rows=4", "data.heldout_fraction=0.2"};
    all.insert(all.end(), sets.begin(), sets.end());
    return load_config(path() / "run.toml", all);
  }
  std::string elsewhere(const char* name) const { return "output_dir=" + (path() / name).string(); }

 private:
  ScratchFolder folder_;
};

// The lines of a stage's log of metrics or evaluations, without times and memory.
inline std::vector<Json> lines_of(const std::filesystem::path& file) {
  std::vector<Json> lines;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    Json kept = Json::object();
    const Json all = parse_json(line, file.string());
    for (const auto& [key, value] : all.items())
      if (!key.starts_with("seconds") && !key.starts_with("memory_") && key != "tokens_per_second" &&
          key != "peak_memory_mb" && key != "wall_time")
        kept[key] = value;
    lines.push_back(kept);
  }
  return lines;
}
inline std::vector<Json> steps_of(const std::filesystem::path& stage) { return lines_of(stage / "metrics.jsonl"); }

inline std::string weights_of(const std::filesystem::path& model) { return read_text(model / "model.safetensors"); }

}  // namespace dsengine
