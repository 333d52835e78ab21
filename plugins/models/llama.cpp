// LLaMA 1-3 (Touvron et al. 2023, Dubey et al. 2024): pre-norm RMS, rotary positions, grouped-query
// attention, gated SiLU.
#include <dsengine/model.hpp>

static dse::Rope rope_of(const dse::Config& c) {
  // transformers 5 keeps all of it under rope_parameters; before, rope_theta stood alone.
  const bool nested = c.has("rope_parameters");
  const std::string at = nested ? "rope_parameters." : "rope_scaling.";
  const auto key = [&](const char* name) { return at + name; };
  dse::Rope rope{.theta = nested ? c.real("rope_parameters.rope_theta", 10000) : c.real("rope_theta", 10000)};
  if (!nested && !c.has("rope_scaling")) return rope;
  rope.scaling = c.string(key("rope_type").c_str(), c.string(key("type").c_str(), "default").c_str());
  c.require(rope.scaling == "default" || rope.scaling == "linear" || rope.scaling == "llama3",
            "rope scaling '" + rope.scaling + "' is not supported");
  rope.factor = c.real(key("factor").c_str(), 1);
  rope.low_freq_factor = c.real(key("low_freq_factor").c_str(), 1);
  rope.high_freq_factor = c.real(key("high_freq_factor").c_str(), 4);
  rope.original_context = c.integer(key("original_max_position_embeddings").c_str(), 8192);
  return rope;
}

static void llama(const dse::Config& c, dse::Graph& g) {
  const auto width = c.positive("hidden_size"), heads = c.positive("num_attention_heads");
  const auto vocabulary = c.positive("vocab_size");
  const auto eps = c.real("rms_norm_eps", 1e-6);
  const bool attention_bias = c.boolean("attention_bias", false);
  const auto rope = rope_of(c);

  auto x = g.embed({.weight = "model.embed_tokens.weight", .vocabulary = vocabulary, .width = width});
  for (auto layer : g.layers(c.positive("num_hidden_layers"), "model.layers.{}.")) {
    auto h = g.rms_norm(x, layer("input_layernorm.weight"), eps);
    x = g.add(x, g.attention(h, {.heads = heads,
                                 .kv_heads = c.positive("num_key_value_heads", heads),
                                 .head_dim = c.positive("head_dim", width / heads),
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
