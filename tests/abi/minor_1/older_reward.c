/* A reward built for ABI 1.1: an answer's score is the length of its reply. It strides the answers by its own sizeof.
 */
#include <dsengine/abi.h>
#include <string.h>

static dse_status create(const dse_values* values, void** self) {
  (void)values, (void)self;
  return DSE_OK;
}
static void destroy(void* self) { (void)self; }
static dse_status score(void* self, const dse_answer* answers, int64_t count, float* scores) {
  (void)self;
  for (int64_t i = 0; i < count; ++i) scores[i] = (float)strlen(answers[i].reply);
  return DSE_OK;
}

static const dse_reward reward = {
    .struct_size = sizeof(dse_reward), .create = create, .destroy = destroy, .score = score};
static const dse_item items[] = {{.struct_size = sizeof(dse_item),
                                  .kind = DSE_REWARD_ITEM,
                                  .name = "older_reward",
                                  .summary = "",
                                  .table = &reward}};
static const dse_plugin plugin = {.struct_size = sizeof(dse_plugin),
                                  .abi_major = DSE_ABI_MAJOR,
                                  .abi_minor = DSE_ABI_MINOR,
                                  .item_count = 1,
                                  .name = "older_reward",
                                  .version = "1.0",
                                  .items = items};

DSE_EXPORT dse_status dse_plugin_entry(const dse_host* host, const dse_plugin** out) {
  (void)host;
  *out = &plugin;
  return DSE_OK;
}
