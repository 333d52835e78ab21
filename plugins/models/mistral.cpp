// Mistral (Jiang et al. 2023): LLaMA's layers, with a window on the attention of all of them.
#include <dsengine/model.hpp>

static void mistral(const dse::Config& c, dse::Graph& g) {
  const auto width = c.positive("hidden_size"), heads = c.positive("num_attention_heads");
  const auto head_dim = c.positive("head_dim", width / heads);
  const auto vocabulary = c.positive("vocab_size");
  const auto eps = c.not_negative("rms_norm_eps", 1e-6);
  const auto rope = dse::rope_of(c, head_dim);
  const int64_t window = c.null("sliding_window") ? 0 : c.positive("sliding_window", 4096);

  auto x = g.embed({.weight = "model.embed_tokens.weight", .vocabulary = vocabulary, .width = width});
  for (auto layer : g.layers(c.positive("num_hidden_layers"), "model.layers.{}.")) {
    auto h = g.rms_norm(x, layer("input_layernorm.weight"), eps);
    x = g.add(x,
              g.attention(h, {.heads = heads,
                              .kv_heads = c.null("num_key_value_heads") ? heads : c.positive("num_key_value_heads", 8),
                              .head_dim = head_dim,
                              .rope = rope,
                              .window = window,
                              .q = layer("self_attn.q_proj"),
                              .k = layer("self_attn.k_proj"),
                              .v = layer("self_attn.v_proj"),
                              .o = layer("self_attn.o_proj")}));
    h = g.rms_norm(x, layer("post_attention_layernorm.weight"), eps);
    x = g.add(x, g.gated_mlp(h, {.width = c.positive("intermediate_size"),
                                 .activation = c.activation("hidden_act", "silu"),
                                 .gate = layer("mlp.gate_proj"),
                                 .up = layer("mlp.up_proj"),
                                 .down = layer("mlp.down_proj")}));
  }
  g.head(g.rms_norm(x, "model.norm.weight", eps),
         {.weight = "lm_head.weight", .vocabulary = vocabulary, .tied = c.boolean("tie_word_embeddings", false)});
}
DSE_MODEL("mistral", mistral, "MistralForCausalLM")
