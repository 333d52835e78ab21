// OPT (Zhang et al. 2022): learned positions, biases, ReLU; norms before each block, or after as the size of 350m has
// them, whose embeddings are narrower than its layers.
#include <dsengine/model.hpp>

static void opt(const dse::Config& c, dse::Graph& g) {
  const auto width = c.positive("hidden_size"), heads = c.positive("num_attention_heads");
  const auto vocabulary = c.positive("vocab_size"), embedded = c.positive("word_embed_proj_dim", width);
  const bool bias = c.boolean("enable_bias", true), before = c.boolean("do_layer_norm_before", true);
  const bool affine = c.boolean("layer_norm_elementwise_affine", true);
  const auto norm = [&](dse_tensor x, bool here, const std::string& name) {
    return here ? g.layer_norm(x, {.name = name, .eps = 1e-5, .affine = affine}) : x;
  };

  auto x = g.embed({.weight = "model.decoder.embed_tokens.weight", .vocabulary = vocabulary, .width = embedded});
  if (embedded != width) x = g.linear(x, {.name = "model.decoder.project_in", .width = width});
  x = g.add(x, g.positions({.weight = "model.decoder.embed_positions.weight",
                            .count = c.positive("max_position_embeddings") + 2,
                            .width = width,
                            .offset = 2}));
  for (auto layer : g.layers(c.positive("num_hidden_layers"), "model.decoder.layers.{}.")) {
    auto h = norm(x, before, layer("self_attn_layer_norm"));
    x = g.add(x, g.attention(h, {.heads = heads,
                                 .kv_heads = heads,
                                 .head_dim = width / heads,
                                 .q = layer("self_attn.q_proj"),
                                 .k = layer("self_attn.k_proj"),
                                 .v = layer("self_attn.v_proj"),
                                 .o = layer("self_attn.out_proj"),
                                 .qkv_bias = bias,
                                 .o_bias = bias}));
    x = norm(x, !before, layer("self_attn_layer_norm"));
    h = norm(x, before, layer("final_layer_norm"));
    x = g.add(x, g.mlp(h, {.width = c.positive("ffn_dim"),
                           .activation = c.activation("activation_function", "relu"),
                           .up = layer("fc1"),
                           .down = layer("fc2"),
                           .bias = bias}));
    x = norm(x, !before, layer("final_layer_norm"));
  }
  x = norm(x, before && !c.boolean("_remove_final_layer_norm", false), "model.decoder.final_layer_norm");
  if (embedded != width) x = g.linear(x, {.name = "model.decoder.project_out", .width = embedded});
  g.head(x, {.weight = "lm_head.weight", .vocabulary = vocabulary, .tied = c.boolean("tie_word_embeddings", true)});
}
DSE_MODEL("opt", opt, "OPTForCausalLM")
