// Reads the configuration of a run: a TOML file, then --set overrides, checked key by key.
//
//   RunConfig config = load_config("examples/rlhf_tiny.toml", {"stage.ppo.max_steps=5", "seed=7"});
//   write_text(run_dir / "config.toml", config.resolved);
//
// An unknown key, a wrong type or a value out of range is a UserError that names the key, its file and line, and the
// nearest known key. Relative paths in a file are relative to the file's folder; those given by --set, to the working
// directory.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "run/config.h"

namespace dsengine {

// A key without "stage." that exists in a stage reaches every stage, over what the stage's own table says;
// "stage.<name>.key" reaches one, "plugin.<name>.key" the stages that use the plugin. A value is TOML, or a
// bare string where it is not or the key wants one. Of two sets of a key the later counts.
RunConfig load_config(const std::filesystem::path& file, const std::vector<std::string>& sets = {});

// Keys of one stage, set as above, over what it has.
void set_keys(StageConfig& stage, const std::vector<std::string>& sets);

// The configuration that runs where none is given: $DSENGINE_SHARE/rlhf_tiny.toml, else the installed one
// beside this program.
std::filesystem::path built_in_config();

}  // namespace dsengine
