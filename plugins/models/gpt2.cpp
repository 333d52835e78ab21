// GPT-2 (Radford et al. 2019): learned positions, layer norms before each block, biases, GELU. Its checkpoints keep
// matrices as [in, out], and q, k and v as one.
#include <dsengine/model.hpp>

#include <cmath>

static void gpt2(const dse::Config& c, dse::Graph& g) {
  // Under GPT-2's own names, or those that transformers has for every family.
  const auto size = [&](const char* name, const char* common, int64_t fallback) {
    return c.positive(name, c.positive(common, fallback));
  };
  const auto width = size("n_embd", "hidden_size", 768), heads = size("n_head", "num_attention_heads", 12);
  const auto head_dim = width / heads;
  const auto vocabulary = c.positive("vocab_size", 50257);
  const auto eps = c.not_negative("layer_norm_epsilon", 1e-5);
  c.require(!c.boolean("add_cross_attention", false), "GPT-2 with add_cross_attention is not supported");
  const double scale = c.boolean("scale_attn_weights", true) ? 1 / std::sqrt(double(head_dim)) : 1;
  const bool by_layer = c.boolean("scale_attn_by_inverse_layer_idx", false);

  auto x = g.add(g.embed({.weight = "transformer.wte.weight", .vocabulary = vocabulary, .width = width}),
                 g.positions({.weight = "transformer.wpe.weight",
                              .count = size("n_positions", "max_position_embeddings", 1024),
                              .width = width}));
  for (auto layer : g.layers(size("n_layer", "num_hidden_layers", 12), "transformer.h.{}.")) {
    auto h = g.layer_norm(x, layer("ln_1"), eps);
    x = g.add(x, g.attention(h, {.heads = heads,
                                 .kv_heads = heads,
                                 .head_dim = head_dim,
                                 .scale = by_layer ? scale / double(layer.index + 1) : scale,
                                 .o = layer("attn.c_proj"),
                                 .qkv = layer("attn.c_attn"),
                                 .qkv_bias = true,
                                 .o_bias = true,
                                 .transposed = true}));
    h = g.layer_norm(x, layer("ln_2"), eps);
    x = g.add(x, g.mlp(h, {.width = c.positive("n_inner", 4 * width),
                           .activation = c.activation("activation_function", "gelu_new"),
                           .up = layer("mlp.c_fc"),
                           .down = layer("mlp.c_proj"),
                           .transposed = true}));
  }
  g.head(g.layer_norm(x, "transformer.ln_f", eps),
         {.weight = "lm_head.weight", .vocabulary = vocabulary, .tied = c.boolean("tie_word_embeddings", true)});
}
DSE_MODEL("gpt2", gpt2, "GPT2LMHeadModel")
