/* dsengine plugin ABI, version 1. C11, also valid C++20. Depends on nothing but the C library.
 *
 * A plugin is a shared library that exports one symbol:
 *
 *     dse_status dse_plugin_entry(const dse_host* host, const dse_plugin** plugin);
 *
 * It checks host->abi_major, keeps `host` (valid until the process ends) and hands back a static table of
 * items. An item is one algorithm, model, dataset, reward or kernel: a name, its options, its functions.
 *
 * Rules that hold everywhere
 *  - Every struct begins with `uint32_t struct_size`, set by whoever fills the struct to its sizeof. The
 *    reader accepts a shorter one (the missing tail reads as zero) and a longer one only if every byte it
 *    does not know is zero. Arrays of structs are strided by their elements' struct_size.
 *  - Versions: major must be equal; a plugin's minor must not exceed the host's.
 *  - No C++ exception, RTTI or std:: type crosses. A function that fails calls host->fail(code, text) (the
 *    text is copied at once) and returns that code.
 *  - A pointer given to a function is borrowed for the call, unless its comment says otherwise. Strings are
 *    UTF-8, zero-terminated. A pointer in a dse_plugin table lives as long as the process.
 *  - Threads: the host calls one instance (`self`) from one thread at a time. Plugins start no threads on
 *    the compute path; they use host->parallel_for.
 *  - The host puts the thread's floating-point state back after each call: rounding and flush-to-zero are its own.
 *  - Libraries are never unloaded. One that has ELF notes of its items (plugin.hpp: ItemNote) is opened only for them.
 *
 *  - The host hands answers, batches and gradients at the size that they had in the plugin's own minor version.
 *
 * v1 freezes entry, option, algorithm, dataset and reward tables (offsets: sdk/abi_v1.txt): they only grow at the end.
 * The model and kernel tables are not frozen yet. Each has a revision of its own, and an item must have the host's (a
 * model's follows from its minor): a changed kernel table does not shut out a library of models.
 *
 * Minor versions: 1.1 groups of rows in dse_parameter, is_null in dse_builder (model revision 1); 1.2 kernels are bound
 * to an operation and have typed slots (kernel revision 2); 1.3 rollout_logp in dse_batch.
 */
#ifndef DSENGINE_ABI_H
#define DSENGINE_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DSE_ABI_MAJOR 1u
#define DSE_ABI_MINOR 3u
#define DSE_MODEL_REVISION 1u  /* since 1.1 */
#define DSE_KERNEL_REVISION 5u /* since 1.3 */

#if defined(__GNUC__)
#define DSE_EXPORT __attribute__((visibility("default")))
#else
#define DSE_EXPORT
#endif

typedef int32_t dse_status;
enum {
  DSE_OK = 0,
  DSE_ERROR = 1,       /* anything else */
  DSE_BAD_OPTION = 2,  /* an option's value; the text names the option */
  DSE_BAD_DATA = 3,    /* input data; the text names file and line */
  DSE_UNSUPPORTED = 4, /* a request this item does not serve, such as a model config it cannot express */
  DSE_BAD_VERSION = 5  /* host and plugin do not fit */
};

/* ------------------------------------------------------------------------------------------ options --- */

enum { DSE_OPTION_BOOLEAN = 1, DSE_OPTION_INTEGER = 2, DSE_OPTION_REAL = 3, DSE_OPTION_STRING = 4 };

/* One setting of an item. The host checks the TOML against it before anything loads and prints it in
 * `dsengine plugins info`. A minimum > maximum means "no range". */
typedef struct dse_option {
  uint32_t struct_size;
  uint32_t type;             /* DSE_OPTION_… */
  const char* name;          /* snake_case */
  const char* default_value; /* as TOML would spell it; strings without quotes; NULL: required */
  const char* choices;       /* strings only: allowed values separated by '|'; NULL: any */
  double minimum, maximum;   /* numbers only, inclusive */
  const char* help;          /* one line: what it is, unit, source */
} dse_option;

/* The resolved values of an item's options, and further settings of the run. Opaque; read through the host. */
typedef struct dse_values dse_values;

/* ------------------------------------------------------------------------------------------ host ------ */

enum { DSE_LOG_DEBUG = 0, DSE_LOG_INFO = 1, DSE_LOG_WARNING = 2 };

/* What the host offers a plugin. All functions may be called from any thread of the host unless said. */
typedef struct dse_host {
  uint32_t struct_size;
  uint32_t abi_major, abi_minor;
  uint32_t reserved;
  /* Records why the current call fails and returns `code`. Thread-local; text is copied. */
  dse_status (*fail)(dse_status code, const char* text);
  void (*log)(uint32_t level, const char* text);
  /* Runs body(context, first, last) over disjoint pieces of [begin, end) of at least `grain` elements on the
   * host's threads; returns when all are done. The pieces depend on the arguments and thread count alone. */
  void (*parallel_for)(int64_t begin, int64_t end, int64_t grain,
                       void (*body)(void* context, int64_t first, int64_t last), void* context);
  /* Option values. The name must be in the item's option table, with that type. The string lives as long as
   * `values`. Return DSE_BAD_OPTION for an unknown name. */
  dse_status (*get_boolean)(const dse_values* values, const char* name, int32_t* out);
  dse_status (*get_integer)(const dse_values* values, const char* name, int64_t* out);
  dse_status (*get_real)(const dse_values* values, const char* name, double* out);
  dse_status (*get_string)(const dse_values* values, const char* name, const char** out);
} dse_host;

/* ------------------------------------------------------------------------------------------ algorithm - */

/* Roles: the models an algorithm works with. */
enum { DSE_ACTOR = 1, DSE_REFERENCE = 2, DSE_CRITIC = 4, DSE_REWARD = 8 };

/* Where a batch comes from. */
enum {
  DSE_SOURCE_ROLLOUT = 0, /* the actor answers prompts */
  DSE_SOURCE_RECORDS = 1, /* texts to imitate */
  DSE_SOURCE_PAIRS = 2    /* chosen and rejected answers; rows 2i and 2i+1, in one micro-batch whatever the form */
};

/* What one loss value belongs to (a "unit"), hence the length of dse_gradients.loss. */
enum {
  DSE_FORM_TOKEN = 0, /* each response token */
  DSE_FORM_ROW = 1,   /* each row */
  DSE_FORM_PAIR = 2,  /* each pair of rows (2i, 2i+1) */
  DSE_FORM_RAW = 3    /* the whole minibatch: one value, already normalised by the plugin */
};

/* What the sum of the units' losses is divided by. Counted over the whole minibatch, all ranks, before the
 * first micro-batch, so that neither micro-batch size nor rank count changes the objective. */
enum {
  DSE_NORM_TOKENS = 0,         /* token form: number of loss tokens, each counted by its row's weight */
  DSE_NORM_ROWS = 1,           /* rows with loss tokens, each counted by its weight; pair form: half of that sum */
  DSE_NORM_ROW_TOKEN_MEAN = 2, /* token form: mean over each row's loss tokens, then over rows, counted so */
  DSE_NORM_CONSTANT = 3        /* rows (or pairs), counted so, times `normalisation_constant` */
};

/* Columns that cost something to compute; the others are always there. */
enum {
  DSE_COLUMN_LOGP = 1,     /* of the actor, in the loss */
  DSE_COLUMN_ENTROPY = 2,  /* of the actor, in the loss */
  DSE_COLUMN_VALUE = 4,    /* of the critic or the trained reward model, in the loss */
  DSE_COLUMN_OLD_LOGP = 8, /* of the actor, before the first update on this batch */
  DSE_COLUMN_OLD_VALUE = 16,
  DSE_COLUMN_REF_LOGP = 32,     /* of the reference */
  DSE_COLUMN_SCORE = 64,        /* of the reward */
  DSE_COLUMN_ROLLOUT_LOGP = 128 /* of the policy that answered, as the rollout told it (since 1.3) */
};

/* What an algorithm declares; read once after create. */
typedef struct dse_needs {
  uint32_t struct_size;
  uint32_t roles;         /* DSE_ACTOR | … */
  uint32_t trained;       /* which of them are trained */
  uint32_t source;        /* DSE_SOURCE_… */
  uint32_t form;          /* DSE_FORM_… */
  uint32_t normalisation; /* DSE_NORM_… */
  uint32_t columns;       /* DSE_COLUMN_… that prepare or loss read */
  uint32_t own_columns;   /* float32 per-token columns that prepare fills and loss reads */
  double normalisation_constant;
  int64_t group_size; /* rollouts: answers per prompt it wants at least (1: any). A group lies on one rank and in
                       * one minibatch; micro-batches cut it, so a loss that needs all of it takes form raw */
} dse_needs;

enum { DSE_FINISH_EOS = 0, DSE_FINISH_LENGTH = 1, DSE_FINISH_STOP = 2, DSE_FINISH_RECORD = 3 };

/* Rows of ragged responses as columns in host memory. Row r owns tokens [offsets[r], offsets[r+1]).
 * In prepare: every row of the step, the same on every rank. In loss: one micro-batch, perhaps empty (arrays NULL).
 * Of the columns that cost something, those not asked for are NULL. Read-only unless said. */
typedef struct dse_batch {
  uint32_t struct_size;
  uint32_t own_column_count;
  int64_t rows, tokens;
  const int64_t* offsets; /* [rows + 1] */
  /* per row */
  const int64_t* prompt;   /* id of the prompt: rows of one group share it and are adjacent */
  const int32_t* finish;   /* DSE_FINISH_… */
  const float* score;      /* reward of the whole answer */
  const float* row_weight; /* weight of the record (pairs: in both rows); 1 unless the data says; never 0 */
  /* per token */
  const int32_t* token; /* id */
  const float* mask;    /* 1 where the token is a loss target, else 0 */
  const float* logp;    /* log-softmax(logits / temperature)[token] */
  const float* entropy; /* of that distribution, nats */
  const float* value;   /* critic: of the state before the token; reward model: after the token */
  const float* old_logp;
  const float* old_value;
  const float* ref_logp;
  float* advantage;  /* prepare writes, loss reads */
  float* target;     /* prepare writes, loss reads: what the value should become */
  float* const* own; /* [own_column_count] of [tokens]: prepare writes, loss reads */
  /* the host's functions, valid during the call */
  void* context;
  /* Adds to the weighted mean of a metric; reduced over micro-batches and ranks by the host. From the calling thread
   * alone, not inside parallel_for. */
  void (*metric)(void* context, const char* name, double value, double weight);
  /* Sums `count` doubles over all ranks, in place. Every rank must call it, in the same order. */
  dse_status (*all_reduce_sum)(void* context, double* values, int64_t count);
  /* Since 1.3. Per token: logp of the policy that answered, before any filter of its sampling. Where the run corrects
   * for that policy (rollout.correction), the host multiplies token, row and pair losses itself, and form raw is the
   * plugin's own. */
  const float* rollout_logp;
} dse_batch;

/* Written by loss. The host multiplies unit u's loss and the gradients of its tokens by
 * weight(u) / normaliser, sums them and runs the backward pass. Arrays of columns not asked for are NULL;
 * the others come zeroed. */
typedef struct dse_gradients {
  uint32_t struct_size;
  uint32_t reserved;
  double* loss;     /* [units]: tokens, rows, rows / 2 or 1, by form */
  float* d_logp;    /* [tokens]: of the token's unit's loss by logp */
  float* d_entropy; /* [tokens] */
  float* d_value;   /* [tokens] */
} dse_gradients;

typedef struct dse_algorithm {
  uint32_t struct_size;
  uint32_t reserved;
  dse_status (*create)(const dse_values* values, void** self);
  void (*destroy)(void* self);
  dse_status (*needs)(const void* self, dse_needs* needs);
  /* Once per rollout or step of records, before its first loss call; in evaluations too, after which the state that
   * save gives is put back. May be NULL. */
  dse_status (*prepare)(void* self, const dse_batch* batch);
  dse_status (*loss)(void* self, const dse_batch* batch, dse_gradients* gradients);
  /* State of the algorithm's own that a checkpoint must hold (a KL controller's coefficient). save is called
   * with buffer NULL for the size first. Both NULL: stateless. */
  dse_status (*save)(const void* self, void* buffer, int64_t* size);
  dse_status (*load)(void* self, const void* buffer, int64_t size);
} dse_algorithm;

/* ------------------------------------------------------------------------------------------ dataset --- */

/* What a record is; says which fields of dse_record are set. */
enum {
  DSE_RECORD_TEXT = 1,       /* text */
  DSE_RECORD_MESSAGES = 2,   /* messages */
  DSE_RECORD_PROMPT = 3,     /* prompt or messages */
  DSE_RECORD_COMPLETION = 4, /* prompt or messages, and completion */
  DSE_RECORD_PAIR = 5        /* prompt or messages, chosen, rejected */
};

typedef struct dse_message {
  uint32_t struct_size;
  uint32_t train;   /* 1: an assistant turn to imitate (the default for assistant turns); 0: context */
  const char* role; /* system, user, assistant, … */
  const char* content;
} dse_message;

/* Text only: the host tokenizes, blends, splits, shuffles and shards. Pointers live until the next get on
 * this instance. NULL: not set. */
typedef struct dse_record {
  uint32_t struct_size;
  uint32_t kind; /* DSE_RECORD_… */
  const char* text;
  const char* prompt;
  const char* completion;
  const char* chosen;
  const char* rejected;
  const dse_message* messages;
  int64_t message_count;
  const char* metadata; /* the record's other fields as one JSON object, for rewards; NULL: none */
  double weight;        /* 1 unless the data says */
} dse_record;

typedef struct dse_dataset {
  uint32_t struct_size;
  uint32_t reserved;
  /* Opens and validates `path`; a bad record fails here or in get with file and line. */
  dse_status (*open)(const dse_values* values, const char* path, void** self);
  void (*close)(void* self);
  dse_status (*size)(void* self, int64_t* records);
  /* Stateless random access: the same index gives the same record. */
  dse_status (*get)(void* self, int64_t index, dse_record* record);
} dse_dataset;

/* ------------------------------------------------------------------------------------------ reward ---- */

typedef struct dse_answer {
  uint32_t struct_size;
  uint32_t finish;             /* DSE_FINISH_… */
  const char* prompt;          /* whole text in the chat's form, special tokens left out */
  const char* reply;           /* the answer without its end-of-sequence token */
  const char* metadata;        /* of the record, JSON object or NULL */
  double model_score;          /* the reward model's value at the last token, where needs_model is 1 */
  double model_mean, model_sd; /* of that model's scores on its training answers; 0 and 1 when not recorded */
  int64_t token_count;         /* of the reply, the ending eos included */
} dse_answer;

typedef struct dse_reward {
  uint32_t struct_size;
  uint32_t needs_model; /* 1: the host runs a reward model and fills model_score */
  dse_status (*create)(const dse_values* values, void** self);
  void (*destroy)(void* self);
  /* scores[i] of answers[i]; NaN or infinite: this item failed (it is counted and dropped, never scored 0). */
  dse_status (*score)(void* self, const dse_answer* answers, int64_t count, float* scores);
} dse_reward;

/* ------------------------------------------------------------------------------------------ model ----- */
/* UNSTABLE until frozen: of DSE_MODEL_REVISION, which plugins of minor 1 on have. */

/* The model's config.json, read through the host's builder. */
typedef struct dse_config dse_config;
/* The graph under construction. */
typedef struct dse_graph dse_graph;
/* An activation of the graph: [N tokens, width]. 0 is none. */
typedef uint32_t dse_tensor;

/* One attribute of an operator. `type` says which value is set. An attribute given several times is a list. */
typedef struct dse_attribute {
  uint32_t struct_size;
  uint32_t type; /* DSE_OPTION_… */
  const char* name;
  int64_t integer; /* booleans too */
  double real;
  const char* string;
} dse_attribute;

/* One parameter of an operator. Where the checkpoint stores several of an operator's parameters in one
 * tensor, they name the same tensor and `first_row` says where each begins (rows of [out, in]). */
typedef struct dse_parameter {
  uint32_t struct_size;
  uint32_t transposed; /* 1: the checkpoint stores [in, out] */
  const char* role;    /* "weight", "bias", "q.weight", … as the operator's entry in the docs names it */
  const char* tensor;  /* checkpoint name */
  int64_t first_row;   /* -1: the tensor is this parameter alone */
  /* Since 1.1. Where parameters alternate in their tensor (q, k and v of each head): this one has `group_rows` rows
   * from first_row on, the next so many `group_stride` rows after those began, and so forth. 0: its rows are adjacent.
   */
  int64_t group_rows, group_stride;
} dse_parameter;

/* One operator: reads `inputs`, makes one output. Names, attributes and roles: sdk/include/dsengine/model.hpp. */
typedef struct dse_operator {
  uint32_t struct_size;
  uint32_t input_count;
  const char* name;
  const dse_tensor* inputs;
  const dse_attribute* attributes;
  const dse_parameter* parameters;
  uint32_t attribute_count, parameter_count;
} dse_operator;

typedef struct dse_builder {
  uint32_t struct_size;
  uint32_t reserved;
  /* Path: keys joined by '.', say "rope_scaling.factor"; in a list the key is an index, say "layer_types.0". Found:
   * *type is set to DSE_OPTION_…, else to 0 (absent or null). A value of another type than asked for is DSE_BAD_DATA.
   */
  dse_status (*find)(const dse_config* config, const char* path, uint32_t* type);
  dse_status (*boolean)(const dse_config* config, const char* path, int32_t* out);
  dse_status (*integer)(const dse_config* config, const char* path, int64_t* out);
  dse_status (*real)(const dse_config* config, const char* path, double* out);
  dse_status (*string)(const dse_config* config, const char* path, const char** out);
  /* Begins layer `index` (0, 1, …) or, with -1, ends the layers. */
  dse_status (*layer)(dse_graph* graph, int64_t index);
  dse_status (*add)(dse_graph* graph, const dse_operator* op, dse_tensor* output);
  /* Since 1.1. 1: the path is there and null, which find does not tell from absent. */
  dse_status (*is_null)(const dse_config* config, const char* path, int32_t* out);
} dse_builder;

typedef struct dse_model {
  uint32_t struct_size;
  uint32_t architecture_count;
  const char* const* architectures; /* entries of config.json's "architectures", such as LlamaForCausalLM */
  dse_status (*declare)(const dse_builder* builder, const dse_config* config, dse_graph* graph);
} dse_model;

/* ------------------------------------------------------------------------------------------ kernel ---- */
/* UNSTABLE until frozen: of DSE_KERNEL_REVISION. */

enum { DSE_F32 = 1, DSE_F64 = 2, DSE_BF16 = 3, DSE_I32 = 4, DSE_I64 = 5, DSE_U8 = 6 };
enum { DSE_CPU = 1, DSE_CUDA = 2 };
#define DSE_PLANNED 0xffffffffu /* a device_index: the kernel is asked for its workspace, and never run */
enum { DSE_SILU = 0, DSE_RELU = 1, DSE_GELU = 2, DSE_GELU_TANH = 3 };

/* The operations. What each reads and makes: the catalogue in sdk/include/dsengine/catalogue.hpp. */
enum {
  DSE_OP_LINEAR = 1,
  DSE_OP_LINEAR_BACKWARD = 2,
  DSE_OP_LINEAR_WEIGHT_BACKWARD = 3,
  DSE_OP_EMBEDDING = 4,
  DSE_OP_EMBEDDING_WEIGHT_BACKWARD = 5,
  DSE_OP_RMS_NORM = 6,
  DSE_OP_RMS_NORM_BACKWARD = 7,
  DSE_OP_RMS_NORM_WEIGHT_BACKWARD = 8,
  DSE_OP_LAYER_NORM = 9,
  DSE_OP_LAYER_NORM_BACKWARD = 10,
  DSE_OP_LAYER_NORM_WEIGHT_BACKWARD = 11,
  DSE_OP_ACTIVATION = 12,
  DSE_OP_ACTIVATION_BACKWARD = 13,
  DSE_OP_GATED_ACTIVATION = 14,
  DSE_OP_GATED_ACTIVATION_BACKWARD = 15,
  DSE_OP_ROPE = 16,
  DSE_OP_ROPE_BACKWARD = 17,
  DSE_OP_ATTENTION = 18,
  DSE_OP_ATTENTION_BACKWARD = 19,
  DSE_OP_CACHE_WRITE = 20,
  DSE_OP_CACHED_ATTENTION = 21,
  DSE_OP_LOG_PROB = 22,
  DSE_OP_LOG_PROB_BACKWARD = 23,
  DSE_OP_SUM_OF_SQUARES = 24,
  DSE_OP_ADAMW = 25,
  DSE_OP_LOGIT_SUMS = 26,
  DSE_OP_SOFTCAP = 27,
  DSE_OP_DRAW = 28,
  DSE_OP_PACK_WEIGHTS = 29,
  DSE_OP_PACKED_LINEAR = 30,
  DSE_OP_STOCHASTIC_ROUND = 31,
  DSE_OP_ENCODE_ROWS = 32,
  DSE_OP_DECODE_ROWS = 33,
  DSE_OP_LINEAR_ACTIVATION = 34,
  DSE_OP_LINEAR_GATED_ACTIVATION = 35,
  DSE_OP_CACHED_STEP = 36
};

/* Weights that a rollout reads narrower than they are trained; their layout: the catalogue. */
enum { DSE_PACKED_BF16 = 1, DSE_PACKED_INT8 = 2 };

/* One operation as it is bound: what does not change from call to call. What an operation does not read means nothing.
 */
typedef struct dse_operation {
  uint32_t struct_size;
  uint32_t op;                   /* DSE_OP_… */
  uint32_t dtype;                /* DSE_F32 …: of activations, weights and their gradients */
  uint32_t device, device_index; /* DSE_CPU … */
  uint32_t activation;           /* DSE_SILU … */
  int64_t in, out;               /* I and O of the catalogue */
  int64_t heads, kv_heads, head_dim;
  int64_t window; /* a token sees itself and the window - 1 before it; 0: all */
  double eps;     /* of norms */
  double shift;   /* the weight that multiplies is weight + shift */
  double scale;   /* of attention's scores */
  double softcap; /* softcap * tanh(x / softcap), of attention's scores or of logits; 0: none */
  /* Rotary positions: dimensions i and i + rope_pairs of a head turn by position * frequency[i]; in sequences longer
   * than rope_long_after by the other table, which is NULL where there is none. Borrowed for the call. */
  int64_t rope_pairs, rope_long_after;
  const float* rope_frequencies;
  const float* rope_long_frequencies;
  double rope_amplitude; /* of cosine and sine */
  uint32_t packing;      /* DSE_PACKED_… */
  uint32_t reserved;
} dse_operation;

/* A borrowed tensor, laid out like DLPack's DLTensor: strides in elements. */
typedef struct dse_array {
  uint32_t struct_size;
  uint32_t dtype;
  void* data; /* NULL, with rank 0: an optional slot that is empty */
  uint32_t device, device_index;
  int64_t rank;
  const int64_t* shape;
  const int64_t* strides;
} dse_array;

/* One call of a bound operation. Every slot of the catalogue is there, in its order. */
typedef struct dse_call {
  uint32_t struct_size;
  uint32_t input_count, output_count;
  uint32_t real_count, integer_count;
  uint32_t reserved;
  int64_t rows; /* any number, 0 too */
  const dse_array* inputs;
  const dse_array* outputs; /* allocated by the host */
  const double* reals;
  const int64_t* integers;
  void* workspace; /* of as many bytes as workspace_bytes said for at least so many rows */
  int64_t workspace_bytes;
  void* stream; /* CUDA stream, or NULL */
} dse_call;

/* Row invariant: a row of the outputs has the same bits whatever rows stand beside it, and however many. Of an
 * operation that sums over rows: the sum does not depend on the number of threads. Kernels of one library that claim it
 * come to the same bits where two operations come to the same numbers (catalogue.hpp). */
enum { DSE_KERNEL_ROW_INVARIANT = 1, DSE_KERNEL_CAPTURABLE = 2 /* may stand in a CUDA graph */ };

typedef struct dse_kernel {
  uint32_t struct_size;
  uint32_t revision; /* DSE_KERNEL_REVISION */
  uint32_t op;       /* DSE_OP_… */
  uint32_t dtype, device;
  uint32_t flags;   /* DSE_KERNEL_… */
  int32_t priority; /* of those that can be bound the highest serves; the engine's reference has 0 */
  uint32_t reserved;
  /* Binds to an operation of the op, dtype and device above. DSE_UNSUPPORTED, with the reason: the next one is asked,
   * and the log says why. */
  dse_status (*create)(const dse_operation* operation, void** self);
  void (*destroy)(void* self);
  /* For a call of up to so many rows. */
  int64_t (*workspace_bytes)(const void* self, int64_t rows);
  /* No allocation, no synchronisation. One call at a time on one self. */
  dse_status (*run)(void* self, const dse_call* call);
} dse_kernel;

/* ------------------------------------------------------------------------------------------ plugin ---- */

enum { DSE_ALGORITHM = 1, DSE_MODEL = 2, DSE_DATASET = 3, DSE_REWARD_ITEM = 4, DSE_KERNEL = 5 };

typedef struct dse_item {
  uint32_t struct_size;
  uint32_t kind;       /* DSE_ALGORITHM … */
  const char* name;    /* unique within its kind */
  const char* summary; /* one line */
  const dse_option* options;
  uint32_t option_count;
  uint32_t reserved;
  const void* table; /* dse_algorithm, dse_model, dse_dataset, dse_reward or dse_kernel */
} dse_item;

typedef struct dse_plugin {
  uint32_t struct_size;
  uint32_t abi_major, abi_minor;
  uint32_t item_count;
  const char* name;
  const char* version;
  const dse_item* items;
} dse_plugin;

/* The one exported symbol. *plugin lives as long as the process. */
typedef dse_status (*dse_plugin_entry_fn)(const dse_host* host, const dse_plugin** plugin);
DSE_EXPORT dse_status dse_plugin_entry(const dse_host* host, const dse_plugin** plugin);

#ifdef __cplusplus
}
#endif
#endif
