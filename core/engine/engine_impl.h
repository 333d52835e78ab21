// What the handles of engine/engine.h stand for. Inside the engine only.
#pragma once
#include "engine/engine.h"
#include "engine/session.h"
#include "generate/scheduler.h"
#include "rl/examples.h"
#include "rl/experience.h"
#include "rl/role.h"

namespace dse {

struct Text::Impl {
  dsengine::TextModel text;
};

struct Engine::Impl {
  const dsengine::Session session;
  Impl(const std::vector<std::filesystem::path>& plugin_path, const std::string& device)
      : session(plugin_path, {}, device) {}
};

struct Model::Impl {
  std::shared_ptr<const Engine::Impl> engine;  // owns the kernels that the model computes with
  std::shared_ptr<dsengine::Role> role;
  std::unique_ptr<dsengine::Scheduler> scheduler{};  // since the first generate; keeps its memory
  std::optional<Text> text;
  std::vector<int32_t> end_tokens;
  bool drawn = false;  // the weights are of no folder
  const dsengine::Model& model() const { return role->model; }
};

// UserError where the model cannot read them.
void check_replies(const dsengine::Model& model, const std::vector<Reply>& replies);
// Replies as rows; those to one prompt, adjacent, share its number.
dsengine::Experience experience_of(const std::vector<Reply>& replies, const std::vector<float>& scores);

}  // namespace dse
