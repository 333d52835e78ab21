// Phi-3 and Phi-4 (Abdin et al. 2024): LLaMA's layers with q, k and v in one tensor, gate and up in another, and
// longrope.
#include <dsengine/model.hpp>

static void phi3(const dse::Config& c, dse::Graph& g) {
  const auto width = c.positive("hidden_size"), heads = c.positive("num_attention_heads");
  const auto head_dim = c.positive("head_dim", width / heads);
  const auto vocabulary = c.positive("vocab_size");
  const auto eps = c.not_negative("rms_norm_eps", 1e-5);
  c.require(dse::RopeConfig(c).type() != "yarn", "Phi-3's first spelling of longrope as yarn is not supported");
  const auto rope = dse::rope_of(c, head_dim,
                                 {.share = c.real("partial_rotary_factor", 1),
                                  .original_context = c.positive("original_max_position_embeddings", 4096)});
  const int64_t window = c.has("sliding_window") ? c.positive("sliding_window") : 0;

  auto x = g.embed({.weight = "model.embed_tokens.weight", .vocabulary = vocabulary, .width = width});
  for (auto layer : g.layers(c.positive("num_hidden_layers"), "model.layers.{}.")) {
    auto h = g.rms_norm(x, layer("input_layernorm.weight"), eps);
    x = g.add(x, g.attention(h, {.heads = heads,
                                 .kv_heads = c.positive("num_key_value_heads", heads),
                                 .head_dim = head_dim,
                                 .rope = rope,
                                 .window = window,
                                 .o = layer("self_attn.o_proj"),
                                 .qkv = layer("self_attn.qkv_proj")}));
    h = g.rms_norm(x, layer("post_attention_layernorm.weight"), eps);
    x = g.add(x, g.gated_mlp(h, {.width = c.positive("intermediate_size"),
                                 .activation = c.activation("hidden_act", "silu"),
                                 .down = layer("mlp.down_proj"),
                                 .gate_up = layer("mlp.gate_up_proj")}));
  }
  g.head(g.rms_norm(x, "model.norm.weight", eps),
         {.weight = "lm_head.weight", .vocabulary = vocabulary, .tied = c.boolean("tie_word_embeddings", false)});
}
DSE_MODEL("phi3", phi3, "Phi3ForCausalLM")
