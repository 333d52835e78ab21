// LLaMA 1-3 (Touvron et al. 2023, Dubey et al. 2024): pre-norm RMS, rotary positions, grouped-query
// attention, gated SiLU.
#include <dsengine/model.hpp>

static void llama(const dse::Config& c, dse::Graph& g) {
  const auto width = c.positive("hidden_size"), heads = c.positive("num_attention_heads");
  const auto head_dim = c.positive("head_dim", width / heads);
  const auto vocabulary = c.positive("vocab_size");
  const auto eps = c.not_negative("rms_norm_eps", 1e-6);
  const bool attention_bias = c.boolean("attention_bias", false);
  const auto rope = dse::rope_of(c, head_dim);

  auto x = g.embed({.weight = "model.embed_tokens.weight", .vocabulary = vocabulary, .width = width});
  for (auto layer : g.layers(c.positive("num_hidden_layers"), "model.layers.{}.")) {
    auto h = g.rms_norm(x, layer("input_layernorm.weight"), eps);
    x = g.add(x, g.attention(h, {.heads = heads,
                                 .kv_heads = c.positive("num_key_value_heads", heads),
                                 .head_dim = head_dim,
                                 .rope = rope,
                                 .q = layer("self_attn.q_proj"),
                                 .k = layer("self_attn.k_proj"),
                                 .v = layer("self_attn.v_proj"),
                                 .o = layer("self_attn.o_proj"),
                                 .qkv_bias = attention_bias,
                                 .o_bias = attention_bias}));
    h = g.rms_norm(x, layer("post_attention_layernorm.weight"), eps);
    x = g.add(x, g.gated_mlp(h, {.width = c.positive("intermediate_size"),
                                 .activation = c.activation("hidden_act", "silu"),
                                 .gate = layer("mlp.gate_proj"),
                                 .up = layer("mlp.up_proj"),
                                 .down = layer("mlp.down_proj"),
                                 .bias = c.boolean("mlp_bias", false)}));
  }
  g.head(g.rms_norm(x, "model.norm.weight", eps),
         {.weight = "lm_head.weight", .vocabulary = vocabulary, .tied = c.boolean("tie_word_embeddings", false)});
}
DSE_MODEL("llama", llama, "LlamaForCausalLM")
