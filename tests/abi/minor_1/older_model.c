/* A model built for ABI 1.1: an embedding, one norm and a head tied to the embedding. */
#include <dsengine/abi.h>

#define COUNT(list) (sizeof list / sizeof list[0])
#define INTEGER(name_, value) \
  { .struct_size = sizeof(dse_attribute), .type = DSE_OPTION_INTEGER, .name = name_, .integer = value }
#define REAL(name_, value) \
  { .struct_size = sizeof(dse_attribute), .type = DSE_OPTION_REAL, .name = name_, .real = value }
#define BOOLEAN(name_, value) \
  { .struct_size = sizeof(dse_attribute), .type = DSE_OPTION_BOOLEAN, .name = name_, .integer = value }
#define WEIGHT(tensor_) \
  { .struct_size = sizeof(dse_parameter), .role = "weight", .tensor = tensor_, .first_row = -1 }

static dse_status add(const dse_builder* builder, dse_graph* graph, const char* name, dse_tensor input,
                      const dse_attribute* attributes, uint32_t count, const dse_parameter* weight, dse_tensor* out) {
  const dse_operator op = {.struct_size = sizeof(dse_operator),
                           .input_count = input != 0,
                           .name = name,
                           .inputs = &input,
                           .attributes = attributes,
                           .parameters = weight,
                           .attribute_count = count,
                           .parameter_count = 1};
  return builder->add(graph, &op, out);
}

static dse_status declare(const dse_builder* builder, const dse_config* config, dse_graph* graph) {
  int64_t vocabulary = 0, width = 0;
  dse_status status = builder->integer(config, "vocab_size", &vocabulary);
  if (status == DSE_OK) status = builder->integer(config, "hidden_size", &width);
  if (status != DSE_OK) return status;
  const dse_attribute embed[] = {INTEGER("vocabulary", vocabulary), INTEGER("width", width), REAL("scale", 1)};
  const dse_attribute norm[] = {REAL("eps", 1e-5), REAL("offset", 0)};
  const dse_attribute head[] = {INTEGER("vocabulary", vocabulary), BOOLEAN("tied", 1), REAL("softcap", 0)};
  const dse_parameter table = WEIGHT("embed.weight"), scale = WEIGHT("norm.weight");
  dse_tensor x = 0;
  status = add(builder, graph, "embed", 0, embed, COUNT(embed), &table, &x);
  if (status == DSE_OK) status = builder->layer(graph, -1);
  if (status == DSE_OK) status = add(builder, graph, "rms_norm", x, norm, COUNT(norm), &scale, &x);
  if (status == DSE_OK) status = add(builder, graph, "head", x, head, COUNT(head), &table, &x);
  return status;
}

static const char* const architectures[] = {"OlderForCausalLM"};
static const dse_model model = {
    .struct_size = sizeof(dse_model), .architecture_count = 1, .architectures = architectures, .declare = declare};
static const dse_item items[] = {
    {.struct_size = sizeof(dse_item), .kind = DSE_MODEL, .name = "older_model", .summary = "", .table = &model}};
static const dse_plugin plugin = {.struct_size = sizeof(dse_plugin),
                                  .abi_major = DSE_ABI_MAJOR,
                                  .abi_minor = DSE_ABI_MINOR,
                                  .item_count = 1,
                                  .name = "older_model",
                                  .version = "1.0",
                                  .items = items};

DSE_EXPORT dse_status dse_plugin_entry(const dse_host* host, const dse_plugin** out) {
  (void)host;
  *out = &plugin;
  return DSE_OK;
}
