#include "files/pickle.h"

#include <algorithm>
#include <array>
#include <deque>
#include <unordered_map>

#include "base/check.h"
#include "files/pickle_bytes.h"

namespace dsengine {
namespace {

enum class Kind {
  Mark,
  None,
  Boolean,
  Integer,
  Real,
  Text,
  Tuple,
  List,
  Dictionary,
  Function,
  StorageType,
  Storage,
  Tensor
};

// Names and shapes are copied into each tensor; bounding them keeps the work linear in the pickle's size.
constexpr size_t kMaxDimensions = 16, kMaxStorageName = 255;
// A tensor of a state dict takes some fifteen values; each is a few hundred bytes here, whatever it took in the file.
constexpr size_t kMaxValues = 1 << 21;

enum class Function { RebuildTensor, RebuildParameter, OrderedDictionary };

struct Value {
  Kind kind;
  int64_t integer = 0;                // Boolean, Integer
  std::string text{};                 // Text
  std::vector<const Value*> items{};  // Tuple, List; Dictionary: key, value, key, value, ...
  Function function{};                // Function
  PickledTensor tensor{};             // Tensor; Storage and StorageType use its first fields
};

struct StorageName {
  std::string_view name;
  Dtype dtype;
};

constexpr std::array kStorageTypes{
    StorageName{"torch.DoubleStorage", Dtype::F64}, StorageName{"torch.FloatStorage", Dtype::F32},
    StorageName{"torch.HalfStorage", Dtype::F16},   StorageName{"torch.BFloat16Storage", Dtype::BF16},
    StorageName{"torch.LongStorage", Dtype::I64},   StorageName{"torch.IntStorage", Dtype::I32},
    StorageName{"torch.ShortStorage", Dtype::I16},  StorageName{"torch.CharStorage", Dtype::I8},
    StorageName{"torch.ByteStorage", Dtype::U8},    StorageName{"torch.BoolStorage", Dtype::BOOL},
};

// A stack machine, as pickle is. Values live in one arena, so that what refers to itself is harmless.
class PickleMachine : PickleBytes {
 public:
  using PickleBytes::PickleBytes;

  const Value& run() {
    for (;;) {
      const auto code = static_cast<uint8_t>(take(1)[0]);
      if (code == '.') return *pop();
      step(code);
    }
  }

 private:
  // --- the stack -------------------------------------------------------------------------------------
  Value* push(Value value) {
    check(arena_.size() < kMaxValues, "the pickle makes more than {} values", kMaxValues);
    arena_.push_back(std::move(value));
    stack_.push_back(&arena_.back());
    return stack_.back();
  }
  void push_integer(int64_t value, Kind kind = Kind::Integer) { push({.kind = kind, .integer = value}); }
  void push_text(std::string_view text) { push({.kind = Kind::Text, .text = std::string(text)}); }

  Value* top() {
    check(!stack_.empty() && stack_.back()->kind != Kind::Mark, "the pickle takes more values than it made");
    return stack_.back();
  }
  Value* pop() {
    Value* value = top();
    stack_.pop_back();
    return value;
  }
  Value* pop(Kind kind, const char* what) {
    Value* value = pop();
    check(value->kind == kind, "the pickle has no {} where one belongs", what);
    return value;
  }
  std::vector<const Value*> pop_count(size_t count) {
    std::vector<const Value*> values(count);
    while (count > 0) values[--count] = pop();
    return values;
  }
  std::vector<const Value*> pop_to_mark() {
    const auto is_mark = [](const Value* value) { return value->kind == Kind::Mark; };
    const auto mark = std::find_if(stack_.rbegin(), stack_.rend(), is_mark);
    check(mark != stack_.rend(), "the pickle closes a group that it did not open");
    std::vector<const Value*> values(mark.base(), stack_.end());
    stack_.erase(mark.base() - 1, stack_.end());
    return values;
  }

  // --- the instructions --------------------------------------------------------------------------------
  // clang-format off
  void step(uint8_t code) {
    switch (code) {
      case 0x80: return check(number<uint8_t>() <= 5, "an unknown pickle protocol");
      case 0x95: take(8); return;                                         // FRAME: its length
      case 'N':  push({.kind = Kind::None}); return;
      case 0x88: return push_integer(1, Kind::Boolean);
      case 0x89: return push_integer(0, Kind::Boolean);
      case 'K':  return push_integer(number<uint8_t>());
      case 'M':  return push_integer(number<uint16_t>());
      case 'J':  return push_integer(number<int32_t>());
      case 0x8a: return push_integer(long_integer(number<uint8_t>()));
      case 'G':  take(8), push({.kind = Kind::Real}); return;
      case 'X':  return push_text(take(number<uint32_t>()));
      case 0x8c: return push_text(take(number<uint8_t>()));

      case '(':  push({.kind = Kind::Mark}); return;
      case '0':  pop(); return;
      case ')':  return push_tuple({});
      case 0x85: return push_tuple(pop_count(1));
      case 0x86: return push_tuple(pop_count(2));
      case 0x87: return push_tuple(pop_count(3));
      case 't':  return push_tuple(pop_to_mark());
      case ']':  push({.kind = Kind::List}); return;
      case '}':  push({.kind = Kind::Dictionary}); return;
      case 'a':  return append(pop_count(1), Kind::List);
      case 'e':  return append(pop_to_mark(), Kind::List);
      case 's':  return append(pop_count(2), Kind::Dictionary);
      case 'u':  return append(pop_to_mark(), Kind::Dictionary);

      case 'q':  return keep(number<uint8_t>());
      case 'r':  return keep(number<uint32_t>());
      case 0x94: return keep(static_cast<uint32_t>(memo_.size()));
      case 'h':  return recall(number<uint8_t>());
      case 'j':  return recall(number<uint32_t>());

      case 'c':  return push_global_line();
      case 0x93: return push_global_stacked();
      case 'Q':  return load_storage(pop(Kind::Tuple, "tuple")->items);   // BINPERSID
      case 'R':  return call();
      case 'b':  return skip_attributes();
      default:   check(false, "pickle instruction {:#04x}, which state dicts do not use", code);
    }
  }
  // clang-format on

  void push_tuple(std::vector<const Value*> items) { push({.kind = Kind::Tuple, .items = std::move(items)}); }

  void append(const std::vector<const Value*>& items, Kind kind) {
    Value* target = top();
    check(target->kind == kind && (kind == Kind::List || items.size() % 2 == 0), "the pickle fills a wrong container");
    target->items.insert(target->items.end(), items.begin(), items.end());
  }

  void keep(uint32_t index) {
    check(memo_.size() < kMaxValues, "the pickle keeps more than {} values", kMaxValues);
    memo_[index] = top();
  }

  void recall(uint32_t index) {
    const auto found = memo_.find(index);
    check(found != memo_.end(), "the pickle recalls a value that it did not keep");
    check(stack_.size() < kMaxValues, "the pickle stacks more than {} values", kMaxValues);
    stack_.push_back(found->second);
  }

  void push_global_line() {
    const std::string module = line();
    push_global(module + "." + line());
  }

  void push_global_stacked() {
    const std::string name = pop(Kind::Text, "name")->text;
    push_global(pop(Kind::Text, "module")->text + "." + name);
  }

  void push_global(const std::string& name) {
    for (const auto& type : kStorageTypes) {
      if (type.name == name) {
        push({.kind = Kind::StorageType})->tensor.dtype = type.dtype;
        return;
      }
    }
    const auto push_function = [&](Function function) { push({.kind = Kind::Function, .function = function}); };
    if (name == "torch._utils._rebuild_tensor_v2") return push_function(Function::RebuildTensor);
    if (name == "torch._utils._rebuild_parameter") return push_function(Function::RebuildParameter);
    if (name == "collections.OrderedDict") return push_function(Function::OrderedDictionary);
    check(false, "refused: the pickle refers to '{}', which is no part of a tensor", name);
  }

  // ("storage", type, key, location, elements)
  void load_storage(const std::vector<const Value*>& id) {
    check(id.size() == 5 && id[0]->text == "storage" && id[1]->kind == Kind::StorageType && id[2]->kind == Kind::Text &&
              id[2]->text.size() <= kMaxStorageName && id[4]->kind == Kind::Integer && id[4]->integer >= 0,
          "the pickle has a malformed storage");
    Value* storage = push({.kind = Kind::Storage});
    storage->tensor.dtype = id[1]->tensor.dtype;
    storage->tensor.storage = id[2]->text;
    storage->tensor.storage_elements = static_cast<uint64_t>(id[4]->integer);
  }

  void call() {
    const auto& arguments = pop(Kind::Tuple, "tuple")->items;
    switch (pop(Kind::Function, "function")->function) {
      case Function::OrderedDictionary:
        check(arguments.empty(), "an OrderedDict made from arguments");
        push({.kind = Kind::Dictionary});
        return;
      case Function::RebuildParameter:  // (data, requires_grad, hooks)
        check(!arguments.empty() && arguments[0]->kind == Kind::Tensor, "a parameter made from no tensor");
        push(*arguments[0]);
        return;
      case Function::RebuildTensor:
        return rebuild_tensor(arguments);
    }
  }

  // An OrderedDict's _metadata: nothing that weights need.
  void skip_attributes() {
    pop();
    check(top()->kind == Kind::Dictionary, "the pickle sets attributes of what is no dictionary");
  }

  // (storage, offset, shape, strides, requires_grad, hooks[, metadata])
  void rebuild_tensor(const std::vector<const Value*>& arguments) {
    check(arguments.size() >= 4 && arguments[0]->kind == Kind::Storage && arguments[1]->kind == Kind::Integer &&
              arguments[1]->integer >= 0,
          "the pickle has a malformed tensor");
    Value* value = push({.kind = Kind::Tensor});
    PickledTensor& tensor = value->tensor;
    tensor = arguments[0]->tensor;
    tensor.offset = static_cast<uint64_t>(arguments[1]->integer);
    tensor.shape = sizes(*arguments[2]);
    tensor.strides = sizes(*arguments[3]);
    check(tensor.shape.size() == tensor.strides.size(), "a tensor of {} sizes and {} strides", tensor.shape.size(),
          tensor.strides.size());
    const auto end = tensor.end();
    check(element_count(tensor.shape) && end && *end <= tensor.storage_elements,
          "a tensor of shape {}, strides {}, offset {} passes its storage of {} elements", shape_text(tensor.shape),
          shape_text(tensor.strides), tensor.offset, tensor.storage_elements);
  }

  std::vector<int64_t> sizes(const Value& tuple) const {
    check(tuple.kind == Kind::Tuple, "the pickle has a malformed tensor");
    check(tuple.items.size() <= kMaxDimensions, "a tensor of {} dimensions", tuple.items.size());
    std::vector<int64_t> sizes;
    for (const Value* item : tuple.items) {
      check(item->kind == Kind::Integer && item->integer >= 0, "the pickle has a malformed tensor");
      sizes.push_back(item->integer);
    }
    return sizes;
  }

  std::deque<Value> arena_;
  std::vector<Value*> stack_;
  std::unordered_map<uint32_t, Value*> memo_;
};

}  // namespace

std::optional<uint64_t> PickledTensor::end() const {
  auto last = static_cast<int64_t>(offset);
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0) return offset;
    int64_t step = 0;
    if (__builtin_mul_overflow(shape[i] - 1, strides[i], &step) || __builtin_add_overflow(last, step, &last)) {
      return std::nullopt;
    }
  }
  return static_cast<uint64_t>(last) + 1;
}

std::vector<PickledTensor> parse_tensor_pickle(std::span<const std::byte> pickle, const std::string& where) {
  PickleMachine machine(pickle, where);
  const Value& root = machine.run();
  DSE_CHECK_USER(root.kind == Kind::Dictionary, "{}: holds no state dict (a dictionary of tensors)", where);
  std::vector<PickledTensor> tensors;
  for (size_t i = 0; i < root.items.size(); i += 2) {
    const Value &key = *root.items[i], &value = *root.items[i + 1];
    DSE_CHECK_USER(key.kind == Kind::Text, "{}: the state dict has a key that is no text", where);
    DSE_CHECK_USER(value.kind == Kind::Tensor, "{}: '{}' in the state dict is no tensor", where, key.text);
    tensors.push_back(value.tensor);
    tensors.back().name = key.text;
  }
  return tensors;
}

}  // namespace dsengine
