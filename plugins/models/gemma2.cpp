// Gemma 2 (Riviere et al. 2024): Gemma's layers with norms before and after each block, a window on every second layer,
// and soft caps on attention scores and logits.
#include <dsengine/model.hpp>

#include <cmath>

static int64_t window_of(const dse::Config& c, int64_t layer) {
  const bool sliding = c.sliding_layer(layer, layer % 2 == 0);
  return !sliding || c.null("sliding_window") ? 0 : c.positive("sliding_window", 4096);
}

static void gemma2(const dse::Config& c, dse::Graph& g) {
  const auto width = c.positive("hidden_size"), heads = c.positive("num_attention_heads");
  const auto head_dim = c.positive("head_dim", 256), vocabulary = c.positive("vocab_size");
  const bool bias = c.boolean("attention_bias", false);
  c.require(!c.boolean("use_bidirectional_attention", false), "use_bidirectional_attention is not supported");
  const auto rope = dse::rope_of(c, head_dim);
  const auto cap = [&](const char* name, double absent) { return c.null(name) ? 0 : c.not_negative(name, absent); };
  const auto norm = [&, eps = c.not_negative("rms_norm_eps", 1e-6)](dse_tensor x, const std::string& name) {
    return g.rms_norm(x, {.weight = name, .eps = eps, .offset = 1});
  };

  auto x = g.embed({.weight = "model.embed_tokens.weight",
                    .vocabulary = vocabulary,
                    .width = width,
                    .scale = std::sqrt(double(width))});
  for (auto layer : g.layers(c.positive("num_hidden_layers"), "model.layers.{}.")) {
    auto h = g.attention(norm(x, layer("input_layernorm.weight")),
                         {.heads = heads,
                          .kv_heads = c.positive("num_key_value_heads", 4),
                          .head_dim = head_dim,
                          .scale = 1 / std::sqrt(c.above_zero("query_pre_attn_scalar", 256)),
                          .rope = rope,
                          .window = window_of(c, layer.index),
                          .softcap = cap("attn_logit_softcapping", 50),
                          .q = layer("self_attn.q_proj"),
                          .k = layer("self_attn.k_proj"),
                          .v = layer("self_attn.v_proj"),
                          .o = layer("self_attn.o_proj"),
                          .qkv_bias = bias,
                          .o_bias = bias});
    x = g.add(x, norm(h, layer("post_attention_layernorm.weight")));
    h = g.gated_mlp(norm(x, layer("pre_feedforward_layernorm.weight")),
                    {.width = c.positive("intermediate_size"),
                     .activation = c.activation("hidden_activation", "gelu_pytorch_tanh"),
                     .gate = layer("mlp.gate_proj"),
                     .up = layer("mlp.up_proj"),
                     .down = layer("mlp.down_proj")});
    x = g.add(x, norm(h, layer("post_feedforward_layernorm.weight")));
  }
  g.head(norm(x, "model.norm.weight"), {.weight = "lm_head.weight",
                                        .vocabulary = vocabulary,
                                        .tied = c.boolean("tie_word_embeddings", true),
                                        .softcap = cap("final_logit_softcapping", 30)});
}
DSE_MODEL("gemma2", gemma2, "Gemma2ForCausalLM")
