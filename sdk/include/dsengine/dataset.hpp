// Datasets: where records come from. Text only; the engine tokenizes, blends, splits, shuffles and resumes.
//
//   struct Lines {
//     Lines(dse::Options&, const std::string& path);              // opens and validates
//     int64_t size() const;
//     dse::Record get(int64_t index);                             // the same index, the same record
//   };
//   DSE_DATASET("lines", Lines)
//
// A constructor that only declares options is asked for with path "": it must ask for every option before it
// touches the path.
#pragma once
#include <vector>

#include "plugin.hpp"

namespace [[gnu::visibility("hidden")]] dse {

struct Message {
  std::string role, content;
  bool train = true;  // an assistant turn to imitate
};

struct Record {
  uint32_t kind = DSE_RECORD_TEXT;  // DSE_RECORD_…: which fields are set
  std::string text, prompt, completion, chosen, rejected;
  std::vector<Message> messages;
  std::string metadata;  // JSON object, or empty
  double weight = 1;
};

namespace detail {

template <class T>
struct OpenDataset {
  T data;
  Record record;                      // what the last get returned
  std::vector<dse_message> messages;  // views into it
};

inline void view(const Record& from, std::vector<dse_message>& messages, dse_record* to) {
  const auto text = [](const std::string& s, bool set) { return set ? s.c_str() : nullptr; };
  messages.clear();
  for (const auto& m : from.messages)
    messages.push_back({sizeof(dse_message), m.train && m.role == "assistant", m.role.c_str(), m.content.c_str()});
  const bool prompted = from.kind >= DSE_RECORD_PROMPT && messages.empty();
  *to = {sizeof(dse_record),
         from.kind,
         text(from.text, from.kind == DSE_RECORD_TEXT),
         text(from.prompt, prompted),
         text(from.completion, from.kind == DSE_RECORD_COMPLETION),
         text(from.chosen, from.kind == DSE_RECORD_PAIR),
         text(from.rejected, from.kind == DSE_RECORD_PAIR),
         messages.data(),
         int64_t(messages.size()),
         text(from.metadata, !from.metadata.empty()),
         from.weight};
}

}  // namespace detail

template <class T>
Item dataset_item(const char* name) {
  using Open = detail::OpenDataset<T>;
  static const dse_dataset table{
      sizeof(dse_dataset),
      0,
      [](const dse_values* values, const char* path, void** self) {
        return guard([&] {
          Options options(values);
          *self = new Open{T(options, path), {}, {}};
        });
      },
      destroy<Open>,
      [](void* self, int64_t* records) { return guard([&] { *records = static_cast<Open*>(self)->data.size(); }); },
      [](void* self, int64_t index, dse_record* record) {
        return guard([&] {
          auto& open = *static_cast<Open*>(self);
          open.record = open.data.get(index);
          detail::view(open.record, open.messages, record);
        });
      }};
  Options options;
  T probe(options, "");
  return {DSE_DATASET, name, summary_of<T>(), &table, std::move(options)};
}

}  // namespace dse

#define DSE_DATASET(name, Type)                                      \
  DSE_ITEM_NOTE("dataset", name, "1.0", dse::noted_summary<Type>()); \
  DSE_PLUGIN(name, "1.0", items.push_back(dse::dataset_item<Type>(name)))
