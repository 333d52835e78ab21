// OPT (Zhang et al. 2022), the pre-norm sizes: learned positions, biases everywhere, ReLU.
#include <dsengine/model.hpp>

static void opt(const dse::Config& c, dse::Graph& g) {
  const auto width = c.positive("hidden_size"), heads = c.positive("num_attention_heads");
  const auto vocabulary = c.positive("vocab_size");
  const bool bias = c.boolean("enable_bias", true);
  const double eps = 1e-5;
  c.require(c.boolean("do_layer_norm_before", true), "OPT with do_layer_norm_before = false is not supported");
  c.require(c.integer("word_embed_proj_dim", width) == width, "OPT with word_embed_proj_dim is not supported");
  c.require(!c.boolean("_remove_final_layer_norm", false), "OPT without a final norm is not supported");
  c.require(c.boolean("layer_norm_elementwise_affine", true), "OPT without affine norms is not supported");

  auto x = g.add(g.embed({.weight = "model.decoder.embed_tokens.weight", .vocabulary = vocabulary, .width = width}),
                 g.positions({.weight = "model.decoder.embed_positions.weight",
                              .count = c.positive("max_position_embeddings") + 2,
                              .width = width,
                              .offset = 2}));
  for (auto layer : g.layers(c.positive("num_hidden_layers"), "model.decoder.layers.{}.")) {
    auto h = g.layer_norm(x, layer("self_attn_layer_norm"), eps);
    x = g.add(x, g.attention(h, {.heads = heads,
                                 .kv_heads = heads,
                                 .head_dim = width / heads,
                                 .q = layer("self_attn.q_proj"),
                                 .k = layer("self_attn.k_proj"),
                                 .v = layer("self_attn.v_proj"),
                                 .o = layer("self_attn.out_proj"),
                                 .qkv_bias = bias,
                                 .o_bias = bias}));
    h = g.layer_norm(x, layer("final_layer_norm"), eps);
    x = g.add(x, g.mlp(h, {.width = c.positive("ffn_dim"),
                           .activation = c.activation("activation_function", "relu"),
                           .up = layer("fc1"),
                           .down = layer("fc2"),
                           .bias = bias}));
  }
  g.head(g.layer_norm(x, "model.decoder.final_layer_norm", eps),
         {.weight = "lm_head.weight", .vocabulary = vocabulary, .tied = c.boolean("tie_word_embeddings", true)});
}
DSE_MODEL("opt", opt, "OPTForCausalLM")
