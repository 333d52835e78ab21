/* One plugin, broken in the way that a FIXTURE_… macro names. Without any it is whole: dataset "empty", which
 * refuses every path. */
#include <dsengine/abi.h>
#include <string.h>

static const dse_host* host;

static dse_status open_dataset(const dse_values* values, const char* path, void** self) {
  (void)values, (void)self;
  return host->fail(DSE_BAD_DATA, path);
}
static void close_dataset(void* self) { (void)self; }
static dse_status size_of_dataset(void* self, int64_t* records) {
  (void)self;
  *records = 0;
  return DSE_OK;
}
static dse_status get_record(void* self, int64_t index, dse_record* record) {
  (void)self, (void)index, (void)record;
  return host->fail(DSE_BAD_DATA, "there are no records");
}

static const dse_dataset dataset = {
    .struct_size = sizeof(dse_dataset),
#ifndef FIXTURE_NO_OPEN
    .open = open_dataset,
#endif
    .close = close_dataset,
    .size = size_of_dataset,
    .get = get_record,
};

#ifdef FIXTURE_KERNEL
static dse_status create_kernel(uint32_t index, void** self) { return (void)index, (void)self, DSE_OK; }
static int32_t supports(const void* self, const dse_call* call) { return (void)self, (void)call, 0; }
static int64_t workspace(const void* self, const dse_call* call) { return (void)self, (void)call, 0; }
static dse_status run(void* self, const dse_call* call) { return (void)self, (void)call, DSE_OK; }
static const dse_kernel kernel = {
    .struct_size = sizeof(dse_kernel),
    .operation_version = 1,
    .operation = "rms_norm",
    .dtype = DSE_F32,
    .device = DSE_CPU,
    .create = create_kernel,
    .destroy = close_dataset,
    .supports = supports,
    .workspace_bytes = workspace,
    .run = run,
};
#endif

static const dse_option options[] = {{
    .struct_size = sizeof(dse_option),
    .type = DSE_OPTION_INTEGER,
    .name = "rows",
#ifdef FIXTURE_BAD_DEFAULT
    .default_value = "many",
#else
    .default_value = "3",
#endif
    .minimum = 1,
    .maximum = 9,
    .help = "rows to make up",
}};

#ifdef FIXTURE_EMPTY_NAME
#define NAME ""
#else
#define NAME "empty"
#endif
#define ITEM                                                                                         \
  {                                                                                                  \
    .struct_size = sizeof(dse_item), .kind = DSE_DATASET, .name = NAME, .summary = "has no records", \
    .options = options, .option_count = 1, .table = &dataset                                         \
  }

/* An item of a later minor: eight bytes more than this header knows. */
typedef struct {
  dse_item known;
  uint64_t added;
} longer_item;

#if defined(FIXTURE_LONG_ZERO) || defined(FIXTURE_LONG_NONZERO)
#ifdef FIXTURE_LONG_ZERO
#define ADDED 0
#else
#define ADDED 1
#endif
/* Two, so that the reader must stride by struct_size. */
static longer_item items[] = {{ITEM, 0}, {ITEM, ADDED}};
#elif defined(FIXTURE_KERNEL)
static dse_item items[] = {
    {.struct_size = sizeof(dse_item), .kind = DSE_KERNEL, .name = "k", .summary = "", .table = &kernel}};
#elif defined(FIXTURE_NULL_TABLE)
static dse_item items[] = {{.struct_size = sizeof(dse_item), .kind = DSE_DATASET, .name = NAME}};
#elif defined(FIXTURE_UNKNOWN_KIND)
static dse_item items[] = {{.struct_size = sizeof(dse_item), .kind = 99, .name = NAME, .table = &dataset}};
#elif defined(FIXTURE_DUPLICATE)
static dse_item items[] = {ITEM, ITEM};
#else
static dse_item items[] = {ITEM};
#endif

static dse_plugin plugin = {
#ifdef FIXTURE_ZERO_SIZE
    .struct_size = 0,
#else
    .struct_size = sizeof(dse_plugin),
#endif
#ifdef FIXTURE_WRONG_MAJOR
    .abi_major = DSE_ABI_MAJOR + 1,
#else
    .abi_major = DSE_ABI_MAJOR,
#endif
#ifdef FIXTURE_NEWER_MINOR
    .abi_minor = DSE_ABI_MINOR + 1,
#else
    .abi_minor = DSE_ABI_MINOR,
#endif
    .item_count = sizeof items / sizeof items[0],
    .name = "fixture",
    .version = "1.0",
#ifndef FIXTURE_NULL_ITEMS
    .items = (const dse_item*)items,
#endif
};

#ifdef FIXTURE_NO_SYMBOL
#define dse_plugin_entry dse_some_other_function
DSE_EXPORT dse_status dse_plugin_entry(const dse_host* from, const dse_plugin** out);
#endif

DSE_EXPORT dse_status dse_plugin_entry(const dse_host* from, const dse_plugin** out) {
  host = from;
#if defined(FIXTURE_FAILS)
  (void)plugin, (void)out;
  return host->fail(DSE_UNSUPPORTED, "needs a licence\nfile");
#elif defined(FIXTURE_FAILS_SILENTLY)
  (void)plugin, (void)out;
  return DSE_ERROR;
#elif defined(FIXTURE_NULL_PLUGIN)
  (void)plugin;
  *out = NULL;
  return DSE_OK;
#else
#if defined(FIXTURE_LONG_ZERO) || defined(FIXTURE_LONG_NONZERO)
  for (int i = 0; i < 2; ++i) items[i].known.struct_size = sizeof(longer_item);
  items[1].known.name = "empty_too";
#endif
  *out = &plugin;
  return DSE_OK;
#endif
}
