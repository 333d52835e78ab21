// Gemma (Mesnard et al. 2024): LLaMA's layers with embeddings scaled by sqrt(width), norm weights kept as their
// distance from 1, heads wider than width / heads, GELU.
#include <dsengine/model.hpp>

#include <cmath>

static void gemma(const dse::Config& c, dse::Graph& g) {
  const auto width = c.positive("hidden_size"), heads = c.positive("num_attention_heads");
  const auto head_dim = c.positive("head_dim", 256), vocabulary = c.positive("vocab_size");
  const bool bias = c.boolean("attention_bias", false);
  c.require(!c.boolean("use_bidirectional_attention", false), "use_bidirectional_attention is not supported");
  auto activation = c.activation("hidden_act", "gelu_pytorch_tanh");
  if (c.string("hidden_act", "") == "gelu") activation = dse::gelu_tanh;  // what the first releases meant by it
  const auto rope = dse::rope_of(c, head_dim);
  const auto norm = [&, eps = c.not_negative("rms_norm_eps", 1e-6)](dse_tensor x, const std::string& name) {
    return g.rms_norm(x, {.weight = name, .eps = eps, .offset = 1});
  };

  auto x = g.embed({.weight = "model.embed_tokens.weight",
                    .vocabulary = vocabulary,
                    .width = width,
                    .scale = std::sqrt(double(width))});
  for (auto layer : g.layers(c.positive("num_hidden_layers"), "model.layers.{}.")) {
    auto h = norm(x, layer("input_layernorm.weight"));
    x = g.add(x, g.attention(h, {.heads = heads,
                                 .kv_heads = c.positive("num_key_value_heads", 16),
                                 .head_dim = head_dim,
                                 .rope = rope,
                                 .q = layer("self_attn.q_proj"),
                                 .k = layer("self_attn.k_proj"),
                                 .v = layer("self_attn.v_proj"),
                                 .o = layer("self_attn.o_proj"),
                                 .qkv_bias = bias,
                                 .o_bias = bias}));
    h = norm(x, layer("post_attention_layernorm.weight"));
    x = g.add(x, g.gated_mlp(h, {.width = c.positive("intermediate_size"),
                                 .activation = activation,
                                 .gate = layer("mlp.gate_proj"),
                                 .up = layer("mlp.up_proj"),
                                 .down = layer("mlp.down_proj")}));
  }
  g.head(norm(x, "model.norm.weight"),
         {.weight = "lm_head.weight", .vocabulary = vocabulary, .tied = c.boolean("tie_word_embeddings", true)});
}
DSE_MODEL("gemma", gemma, "GemmaForCausalLM")
