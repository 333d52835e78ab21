#include "plugin/item.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "base/check.h"
#include "dsengine/catalogue.hpp"
#include "plugin/normalise.h"
#include "plugin/option.h"

namespace dsengine {
namespace {

constexpr const char* kKinds[] = {"algorithm", "model", "dataset", "reward", "kernel"};

constexpr uint32_t kModelMinor = 1;   // DSE_MODEL_REVISION 1 came with it
constexpr uint32_t kKernelMinor = 2;  // kernel tables say their revision from it on
static_assert(DSE_MODEL_REVISION == 1 && DSE_KERNEL_REVISION == 5);

template <class Function>
void require(Function* function, const std::string& what, const char* name) {
  DSE_CHECK_USER(function, "{}: its table has no {}; set it", what, name);
}

dse_algorithm read_algorithm(const void* raw, const std::string& what) {
  const auto table = read_struct<dse_algorithm>(raw, what);
  require(table.create, what, "create");
  require(table.destroy, what, "destroy");
  require(table.needs, what, "needs");
  require(table.loss, what, "loss");
  DSE_CHECK_USER(!table.save == !table.load, "{}: has only one of save and load; set both or neither", what);
  return table;
}

dse_model read_model(const void* raw, const std::string& what) {
  const auto table = read_struct<dse_model>(raw, what);
  require(table.declare, what, "declare");
  DSE_CHECK_USER(table.architecture_count > 0 && table.architectures,
                 "{}: names no architecture of config.json; list at least one", what);
  for (uint32_t i = 0; i < table.architecture_count; ++i)
    DSE_CHECK_USER(table.architectures[i] && *table.architectures[i],
                   "{}: architectures[{}] is empty; name it or lower architecture_count", what, i);
  return table;
}

dse_dataset read_dataset(const void* raw, const std::string& what) {
  const auto table = read_struct<dse_dataset>(raw, what);
  require(table.open, what, "open");
  require(table.close, what, "close");
  require(table.size, what, "size");
  require(table.get, what, "get");
  return table;
}

dse_reward read_reward(const void* raw, const std::string& what) {
  const auto table = read_struct<dse_reward>(raw, what);
  require(table.create, what, "create");
  require(table.destroy, what, "destroy");
  require(table.score, what, "score");
  DSE_CHECK_USER(table.needs_model <= 1, "{}: needs_model is {}; set it to 0 or 1", what, table.needs_model);
  return table;
}

dse_kernel read_kernel(const void* raw, uint32_t plugin_minor, const std::string& what) {
  // The revision comes first: the rest of another's table may mean anything.
  const uint32_t revision = plugin_minor < kKernelMinor ? 1 : static_cast<const dse_kernel*>(raw)->revision;
  DSE_CHECK_USER(revision == DSE_KERNEL_REVISION,
                 "{}: kernel tables are not frozen yet, and it has revision {} of them, this host {}; rebuild it", what,
                 revision, DSE_KERNEL_REVISION);
  const auto table = read_struct<dse_kernel>(raw, what);
  require(table.create, what, "create");
  require(table.destroy, what, "destroy");
  require(table.workspace_bytes, what, "workspace_bytes");
  require(table.run, what, "run");
  DSE_CHECK_USER(table.priority > 0, "{}: its priority is {}; the engine's reference has 0, set it above", what,
                 table.priority);
  DSE_CHECK_USER(table.op >= DSE_OP_LINEAR && table.op <= DSE_OP_CACHED_STEP, "{}: op {} is none of DSE_OP_LINEAR …",
                 what, table.op);
  DSE_CHECK_USER(table.dtype >= DSE_F32 && table.dtype <= DSE_U8, "{}: dtype {} is none of DSE_F32 …", what,
                 table.dtype);
  DSE_CHECK_USER(table.device == DSE_CPU || table.device == DSE_CUDA, "{}: device {} is none of DSE_CPU, DSE_CUDA",
                 what, table.device);
  return table;
}

ItemTable read_table(uint32_t kind, const void* raw, uint32_t plugin_minor, const std::string& what) {
  switch (kind) {
    case DSE_ALGORITHM:
      return read_algorithm(raw, what);
    case DSE_MODEL:
      return read_model(raw, what);
    case DSE_DATASET:
      return read_dataset(raw, what);
    case DSE_REWARD_ITEM:
      return read_reward(raw, what);
    default:
      return read_kernel(raw, plugin_minor, what);
  }
}

std::vector<dse_option> read_options(const dse_item& item, const std::string& what) {
  auto options = read_array<dse_option>(item.options, item.option_count, what + ": options");
  std::set<std::string> names;
  for (size_t i = 0; i < options.size(); ++i) {
    auto& option = options[i];
    const std::string_view name = option.name ? option.name : "";
    // A dangling name holds any bytes; those do not belong on a terminal.
    const bool readable = std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < 0x7f; });
    const std::string label = readable && !name.empty() ? fmt::format("'{}'", name) : fmt::format("{}", i);
    const auto fault = option_fault(option);
    DSE_CHECK_USER(fault.empty(), "{}: option {}: {}; mend its row of the table", what, label, fault);
    DSE_CHECK_USER(names.insert(option.name).second, "{}: option {} is there twice; rename one", what, label);
    if (!option.help) option.help = "";
  }
  return options;
}

}  // namespace

const char* item_kind_name(uint32_t kind) {
  return kind >= 1 && kind <= std::size(kKinds) ? kKinds[kind - 1] : "item of unknown kind";
}

std::vector<std::string> Item::architectures() const {
  return {model().architectures, model().architectures + model().architecture_count};
}

const char* Item::operation() const { return dse::entry(dse::Op(kernel().op)).name; }

std::string Item::label() const {
  return fmt::format("{} '{}' ({})", item_kind_name(kind), name, file.filename().string());
}

Item read_item(const dse_item& raw, uint32_t plugin_minor, const std::string& what) {
  DSE_CHECK_USER(raw.name && *raw.name, "{}: an item has no name; name it", what);
  const auto label = fmt::format("{}: {} '{}'", what, item_kind_name(raw.kind), raw.name);
  DSE_CHECK_USER(raw.kind >= DSE_ALGORITHM && raw.kind <= DSE_KERNEL, "{}: kind {} is none of DSE_ALGORITHM …", label,
                 raw.kind);
  DSE_CHECK_USER(raw.kind != DSE_MODEL || plugin_minor >= kModelMinor,
                 "{}: model tables are not frozen yet, and it was built for ABI {}.{}, this host takes {}.{} to {}.{}; "
                 "rebuild it",
                 label, DSE_ABI_MAJOR, plugin_minor, DSE_ABI_MAJOR, kModelMinor, DSE_ABI_MAJOR, DSE_ABI_MINOR);
  DSE_CHECK_USER(raw.table, "{}: its table is NULL; set it", label);
  Item item;
  item.kind = raw.kind;
  item.name = raw.name;
  item.abi_minor = plugin_minor;
  item.summary = raw.summary ? raw.summary : "";
  item.options = read_options(raw, label);
  item.table = read_table(raw.kind, raw.table, plugin_minor, label);
  return item;
}

}  // namespace dsengine
