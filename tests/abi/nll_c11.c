/* A whole algorithm in C11: imitation, loss = -scale * log p of each loss token. SHORT leaves out save and
 * load as a plugin of before those fields would; ROLLOUT has answers of a rollout instead, of which it wants nothing
 * but logp; SUMS asks for a sum over ranks within the loss; MATH calls the mathematical library, with which no C
 * program is linked unasked; WRONG_… put the faults that `plugins verify` must find. */
#include <dsengine/abi.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const dse_host* host;

typedef struct {
  double scale;
  int64_t prepared; /* batches so far: the state */
} nll;

static dse_status create(const dse_values* values, void** self) {
  nll* made = calloc(1, sizeof *made);
  if (!made) return host->fail(DSE_ERROR, "out of memory");
  const dse_status status = host->get_real(values, "scale", &made->scale);
  if (status != DSE_OK) {
    free(made);
    return status;
  }
  *self = made;
  return DSE_OK;
}

static void destroy(void* self) { free(self); }

static dse_status needs(const void* self, dse_needs* out) {
  (void)self;
  *out = (dse_needs){.struct_size = sizeof(dse_needs),
                     .roles = DSE_ACTOR,
#ifdef WRONG_NEEDS
                     .trained = DSE_ACTOR | DSE_CRITIC,
#else
                     .trained = DSE_ACTOR,
#endif
#ifdef ROLLOUT
                     .source = DSE_SOURCE_ROLLOUT,
#else
                     .source = DSE_SOURCE_RECORDS,
#endif
                     .form = DSE_FORM_TOKEN,
                     .normalisation = DSE_NORM_TOKENS,
#ifdef WRONG_COLUMN
                     .columns = DSE_COLUMN_LOGP | 128, /* rollout_logp, which minor 1 does not know */
#else
                     .columns = DSE_COLUMN_LOGP,
#endif
                     .normalisation_constant = 1,
                     .group_size = 1};
  return DSE_OK;
}

/* A batch is of the size that it has in this file's header, and holds what was asked for. */
static dse_status check_batch(const dse_batch* batch) {
  if (batch->struct_size != sizeof *batch) return host->fail(DSE_ERROR, "a batch of another size");
#ifdef ROLLOUT
  if (batch->old_logp || batch->rollout_logp) return host->fail(DSE_ERROR, "columns that were not asked for");
#endif
  return DSE_OK;
}

static dse_status prepare(void* self, const dse_batch* batch) {
  nll* a = self;
  const dse_status sound = check_batch(batch);
  if (sound != DSE_OK) return sound;
  ++a->prepared;
#ifdef MATH
  volatile float zero = 0;
  if (expf(zero) != 1) return host->fail(DSE_ERROR, "e^0");
#endif
  for (int64_t t = 0; t < batch->tokens; ++t) batch->advantage[t] = 1;
  batch->metric(batch->context, "rows", (double)batch->rows, 1);
  return DSE_OK;
}

typedef struct {
  const nll* a;
  const dse_batch* batch;
  dse_gradients* out;
} job;

static void loss_of_tokens(void* context, int64_t first, int64_t last) {
  const job* j = context;
  for (int64_t t = first; t < last; ++t) {
#ifndef WRONG_MASK
    if (j->batch->mask[t] == 0) continue;
#endif
    double weight = j->a->scale * j->batch->advantage[t];
#ifdef WRONG_MICRO_BATCH
    weight /= (double)j->batch->tokens;
#endif
#ifdef WRONG_STATE
    weight *= (double)j->a->prepared;
#endif
    j->out->loss[t] = -weight * j->batch->logp[t];
    j->out->d_logp[t] = (float)-weight;
#ifdef WRONG_GRADIENT
    j->out->d_logp[t] *= 1.01f;
#endif
#ifdef WRONG_NAN
    j->out->loss[t] /= (j->batch->logp[t] - j->batch->logp[t]);
#endif
  }
}

static dse_status loss(void* self, const dse_batch* batch, dse_gradients* gradients) {
  job j = {self, batch, gradients};
  const dse_status sound = check_batch(batch);
  if (sound != DSE_OK) return sound;
#ifdef WRONG_REPEAT
  ((nll*)self)->scale *= 0.5;
#endif
#ifdef SUMS
  double rows[1] = {(double)batch->rows};
  const dse_status status = batch->all_reduce_sum(batch->context, rows, 1);
  if (status != DSE_OK) return status;
  batch->metric(batch->context, "rows_at_once", rows[0], 1);
#endif
  host->parallel_for(0, batch->tokens, 64, loss_of_tokens, &j);
  return DSE_OK;
}

static dse_status save(const void* self, void* buffer, int64_t* size) {
  const nll* a = self;
  *size = sizeof a->prepared;
  if (buffer) memcpy(buffer, &a->prepared, sizeof a->prepared);
  return DSE_OK;
}

static dse_status load(void* self, const void* buffer, int64_t size) {
  nll* a = self;
  if (size != sizeof a->prepared) return host->fail(DSE_BAD_DATA, "state of another size");
#ifndef WRONG_STATE
  memcpy(&a->prepared, buffer, sizeof a->prepared);
#else
  (void)buffer;
#endif
  return DSE_OK;
}

static const dse_algorithm table = {
#ifdef SHORT
    .struct_size = offsetof(dse_algorithm, save),
    .save = (dse_status(*)(const void*, void*, int64_t*))1, /* beyond struct_size: must not be read */
    .load = NULL,
#else
    .struct_size = sizeof(dse_algorithm),
    .save = save,
    .load = load,
#endif
    .create = create,
    .destroy = destroy,
    .needs = needs,
    .prepare = prepare,
    .loss = loss,
};

static const dse_option options[] = {
    {.struct_size = sizeof(dse_option),
     .type = DSE_OPTION_REAL,
     .name = "scale",
     .default_value = "1.5",
     .minimum = 0,
     .maximum = 10,
     .help = "weight of the loss"},
    {.struct_size = sizeof(dse_option),
     .type = DSE_OPTION_STRING,
     .name = "reduction",
     .default_value = "sum",
     .choices = "sum|mean",
     .help = "how losses join"},
    {.struct_size = sizeof(dse_option),
     .type = DSE_OPTION_BOOLEAN,
     .name = "loud",
     .default_value = "false",
     .minimum = 1,
     .help = "say more"},
    {.struct_size = sizeof(dse_option),
     .type = DSE_OPTION_INTEGER,
     .name = "rounds",
     .default_value = "2",
     .minimum = 1,
     .maximum = 0,
     .help = "without a range"},
};

static const dse_item items[] = {{.struct_size = sizeof(dse_item),
                                  .kind = DSE_ALGORITHM,
                                  .name = "nll",
                                  .summary = "imitation in plain C",
                                  .options = options,
                                  .option_count = sizeof options / sizeof options[0],
                                  .table = &table}};

static const dse_plugin plugin = {.struct_size = sizeof(dse_plugin),
                                  .abi_major = DSE_ABI_MAJOR,
                                  .abi_minor = DSE_ABI_MINOR,
                                  .item_count = 1,
                                  .name = "nll",
                                  .version = "1.2",
                                  .items = items};

dse_status dse_plugin_entry(const dse_host* from, const dse_plugin** out) {
  host = from;
  if (host->abi_major != DSE_ABI_MAJOR) return DSE_BAD_VERSION;
#ifdef SHORT
  (void)save, (void)load;
#endif
  *out = &plugin;
  return DSE_OK;
}
