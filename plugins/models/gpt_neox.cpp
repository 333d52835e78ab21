// GPT-NeoX and Pythia (Black et al. 2022, Biderman et al. 2023): layer norms, rotary positions on a part of each head,
// attention and feed-forward side by side (or not); q, k and v as one, head by head.
#include <dsengine/model.hpp>

static void gpt_neox(const dse::Config& c, dse::Graph& g) {
  const auto width = c.positive("hidden_size"), heads = c.positive("num_attention_heads");
  const auto vocabulary = c.positive("vocab_size");
  const auto eps = c.not_negative("layer_norm_eps", 1e-5);
  const bool bias = c.boolean("attention_bias", true), parallel = c.boolean("use_parallel_residual", true);
  const auto rope = dse::rope_of(
      c, width / heads, {.theta = c.above_zero("rotary_emb_base", 10000), .share = c.real("rotary_pct", 0.25)});

  auto x = g.embed({.weight = "gpt_neox.embed_in.weight", .vocabulary = vocabulary, .width = width});
  for (auto layer : g.layers(c.positive("num_hidden_layers"), "gpt_neox.layers.{}.")) {
    const auto attended =
        g.add(x, g.attention(g.layer_norm(x, layer("input_layernorm"), eps), {.heads = heads,
                                                                              .kv_heads = heads,
                                                                              .head_dim = width / heads,
                                                                              .rope = rope,
                                                                              .o = layer("attention.dense"),
                                                                              .qkv = layer("attention.query_key_value"),
                                                                              .fused = dse::Fused::by_head,
                                                                              .qkv_bias = bias,
                                                                              .o_bias = bias}));
    const auto h = g.layer_norm(parallel ? x : attended, layer("post_attention_layernorm"), eps);
    x = g.add(attended, g.mlp(h, {.width = c.positive("intermediate_size"),
                                  .activation = c.activation("hidden_act", "gelu"),
                                  .up = layer("mlp.dense_h_to_4h"),
                                  .down = layer("mlp.dense_4h_to_h")}));
  }
  g.head(g.layer_norm(x, "gpt_neox.final_layer_norm", eps),
         {.weight = "embed_out.weight", .vocabulary = vocabulary, .tied = c.boolean("tie_word_embeddings", false)});
}
DSE_MODEL("gpt_neox", gpt_neox, "GPTNeoXForCausalLM")
