// StarCoder2 (Lozhkov et al. 2024): rotary positions and grouped-query attention as LLaMA has them, layer norms and a
// plain feed-forward as GPT-2 has them, biases everywhere.
#include <dsengine/model.hpp>

static void starcoder2(const dse::Config& c, dse::Graph& g) {
  const auto width = c.positive("hidden_size"), heads = c.positive("num_attention_heads");
  const auto vocabulary = c.positive("vocab_size");
  const double eps = c.not_negative("norm_epsilon", 1e-5);
  const bool bias = c.boolean("use_bias", true);
  // transformers 5 writes rope_parameters, earlier ones rope_theta.
  const char* theta = c.has("rope_parameters.rope_theta") ? "rope_parameters.rope_theta" : "rope_theta";
  const dse::Rope rope{.theta = c.above_zero(theta, 10000)};
  const std::string rope_type = c.string("rope_parameters.rope_type", "default");
  c.require(rope_type == "default", "rope_type '" + rope_type + "' is not supported");
  c.require(!c.has("sliding_window") || c.integer("sliding_window") >= c.positive("max_position_embeddings", 4096),
            "a sliding_window shorter than max_position_embeddings is not supported");

  auto x = g.embed({.weight = "model.embed_tokens.weight", .vocabulary = vocabulary, .width = width});
  for (auto layer : g.layers(c.positive("num_hidden_layers"), "model.layers.{}.")) {
    auto h = g.layer_norm(x, layer("input_layernorm"), eps);
    x = g.add(x, g.attention(h, {.heads = heads,
                                 .kv_heads = c.positive("num_key_value_heads", 2),
                                 .head_dim = c.positive("head_dim", width / heads),
                                 .rope = rope,
                                 .q = layer("self_attn.q_proj"),
                                 .k = layer("self_attn.k_proj"),
                                 .v = layer("self_attn.v_proj"),
                                 .o = layer("self_attn.o_proj"),
                                 .qkv_bias = bias,
                                 .o_bias = bias}));
    h = g.layer_norm(x, layer("post_attention_layernorm"), eps);
    x = g.add(x, g.mlp(h, {.width = c.positive("intermediate_size"),
                           .activation = c.activation("hidden_act", "gelu_pytorch_tanh"),
                           .up = layer("mlp.c_fc"),
                           .down = layer("mlp.c_proj"),
                           .bias = bias}));
  }
  g.head(g.layer_norm(x, "model.norm", eps),
         {.weight = "lm_head.weight", .vocabulary = vocabulary, .tied = c.boolean("tie_word_embeddings", true)});
}
DSE_MODEL("starcoder2", starcoder2, "Starcoder2ForCausalLM")
