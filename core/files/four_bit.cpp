#include "files/four_bit.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string_view>

#include "base/check.h"
#include "base/json.h"
#include "files/numbers.h"
#include "files/unique_json.h"

namespace dsengine {
namespace {

constexpr std::string_view kState = ".quant_state.bitsandbytes__";
constexpr const char *kScales = ".absmax", *kValues = ".quant_map";
constexpr const char *kNestedScales = ".nested_absmax", *kNestedValues = ".nested_quant_map";
constexpr std::array kParts{kScales, kValues, kNestedScales, kNestedValues};
constexpr uint64_t kMostStateBytes = 1 << 16;                   // its JSON has some 200
constexpr int64_t kLeastBlockSize = 32, kMostBlockSize = 4096;  // those of bitsandbytes

// How many pieces of `piece` each hold `whole`; the last may be shorter.
uint64_t pieces_of(uint64_t whole, uint64_t piece) { return whole / piece + (whole % piece != 0); }

float float_at(std::span<const std::byte> floats, uint64_t index) {
  float value;
  std::memcpy(&value, floats.data() + index * sizeof value, sizeof value);
  return value;
}

// Elements [first, first + out.size()) of codes whose values are given.
void decode(std::span<const std::byte> codes, uint64_t first, const std::array<float, 16>& values,
            std::span<float> out) {
  const auto byte_of = [&](uint64_t element) { return static_cast<size_t>(codes[element / 2]); };
  size_t i = 0;
  if (first % 2 != 0) out[i++] = values[byte_of(first) & 15];
  const std::byte* pair = codes.data() + (first + i) / 2;
  for (; i + 1 < out.size(); i += 2, ++pair) {
    out[i] = values[static_cast<size_t>(*pair) >> 4];
    out[i + 1] = values[static_cast<size_t>(*pair) & 15];
  }
  if (i < out.size()) out[i] = values[byte_of(first + i) >> 4];
}

}  // namespace

// One tensor's parts, found and checked.
class FourBitSource::Reader {
 public:
  Reader(const TensorPlaces& places, const std::string& where, const std::string& name, const std::string& type)
      : places_(places), where_(where), name_(name), type_(type) {}

  Tensor read(std::vector<int64_t>& shape) const {
    DSE_CHECK_USER(type_ == "nf4" || type_ == "fp4", "{}: '{}' is kept in '{}'; of 4 bits, nf4 and fp4 are read",
                   where_, name_, type_);
    const UniqueJson state = read_state();
    shape = shape_of(state);
    const auto count = element_count(shape);
    DSE_CHECK_USER(count, "{}: '{}': the size of shape {} in its quant_state overflows", where_, name_,
                   shape_text(shape));

    Tensor tensor{.codes = codes(*count), .block = block_size_of(state)};
    to_f32(Dtype::F32, part(kValues, Dtype::F32, tensor.values.size()), tensor.values);
    const uint64_t blocks = pieces_of(*count, tensor.block);
    if (!is_nested(state)) {
      tensor.scales = part(kScales, Dtype::F32, blocks);
      return tensor;
    }
    tensor.scales = part(kScales, Dtype::U8, blocks);
    tensor.nested_block = static_cast<uint64_t>(whole(state, "nested_blocksize", 1, INT64_MAX));
    tensor.nested_values.resize(256);
    to_f32(Dtype::F32, part(kNestedValues, Dtype::F32, tensor.nested_values.size()), tensor.nested_values);
    tensor.nested_scales = part(kNestedScales, Dtype::F32, pieces_of(blocks, tensor.nested_block));
    tensor.nested_offset = offset_of(state);
    return tensor;
  }

 private:
  const TensorPlace* find(std::string_view ending) const {
    const auto found = places_.find(name_ + std::string(ending));
    return found == places_.end() ? nullptr : &found->second;
  }

  std::span<const std::byte> bytes(const TensorPlace& place) const {
    const auto stored = place.source->stored_bytes(*place.entry);
    DSE_CHECK_USER(stored, "{}: '{}' does not lie row by row: save it contiguous", where_, place.entry->name);
    return *stored;
  }

  std::span<const std::byte> part(std::string_view ending, Dtype dtype, uint64_t elements) const {
    const TensorPlace* place = find(ending);
    DSE_CHECK_USER(place, "{}: '{}' is kept in 4 bits, but there is no '{}{}'", where_, name_, name_, ending);
    const TensorEntry& entry = *place->entry;
    DSE_CHECK_USER(entry.dtype == dtype && entry.elements() == elements,
                   "{}: '{}' is {} {}, but '{}' asks for {} elements of {}", where_, entry.name,
                   dtype_name(entry.dtype), shape_text(entry.shape), name_, elements, dtype_name(dtype));
    return bytes(*place);
  }

  // bitsandbytes' quant_storage may be any dtype; the codes are the bytes of its elements.
  std::span<const std::byte> codes(uint64_t elements) const {
    const TensorPlace* place = find("");
    DSE_CHECK_USER(place, "{}: there is '{}{}{}', but no '{}'", where_, name_, kState, type_, name_);
    const TensorEntry& entry = *place->entry;
    const auto stored = bytes(*place);
    DSE_CHECK_USER(entry.shape.size() == 2 && entry.shape[1] == 1 && stored.size() == pieces_of(elements, 2),
                   "{}: '{}' is {} {}, but its quant_state asks for a column of {} bytes", where_, name_,
                   dtype_name(entry.dtype), shape_text(entry.shape), pieces_of(elements, 2));
    return stored;
  }

  UniqueJson read_state() const {
    const TensorPlace& place = *find(std::string(kState) + type_);
    const std::string& name = place.entry->name;
    DSE_CHECK_USER(place.entry->dtype == Dtype::U8 && place.entry->elements() <= kMostStateBytes,
                   "{}: '{}' is {} {}, not the bytes of a short JSON text", where_, name,
                   dtype_name(place.entry->dtype), shape_text(place.entry->shape));
    const auto text = bytes(place);
    UniqueJson state = parse_unique_json({reinterpret_cast<const char*>(text.data()), text.size()},
                                         fmt::format("{}: '{}'", where_, name));
    DSE_CHECK_USER(state.is_object(), "{}: '{}' is not a JSON object", where_, name);
    const auto type = state.find("quant_type");
    DSE_CHECK_USER(type != state.end() && *type == type_, "{}: '{}' says quant_type {}", where_, name,
                   type == state.end() ? "nothing" : type->dump());
    return state;
  }

  const UniqueJson& field(const UniqueJson& state, const char* key) const {
    const auto found = state.find(key);
    DSE_CHECK_USER(found != state.end(), "{}: the quant_state of '{}' has no {}", where_, name_, key);
    return *found;
  }

  int64_t whole(const UniqueJson& state, const char* key, int64_t least, int64_t most) const {
    const UniqueJson& value = field(state, key);
    const auto number = whole_number(value, least, most);
    DSE_CHECK_USER(number, "{}: the quant_state of '{}' says {} {}; a whole number from {} to {} is meant", where_,
                   name_, key, value.dump(), least, most);
    return *number;
  }

  std::vector<int64_t> shape_of(const UniqueJson& state) const {
    const UniqueJson& json = field(state, "shape");
    std::vector<int64_t> shape;
    for (const auto& size : json.is_array() ? json : UniqueJson::array())
      if (const auto number = whole_number(size, 1, INT64_MAX)) shape.push_back(*number);
    DSE_CHECK_USER(!shape.empty() && shape.size() == json.size(),
                   "{}: the quant_state of '{}' says shape {}; a list of sizes above 0 is meant", where_, name_,
                   json.dump());
    return shape;
  }

  uint64_t block_size_of(const UniqueJson& state) const {
    const auto size = static_cast<uint64_t>(whole(state, "blocksize", kLeastBlockSize, kMostBlockSize));
    DSE_CHECK_USER(std::has_single_bit(size), "{}: the quant_state of '{}' says blocksize {}, not a power of 2", where_,
                   name_, size);
    return size;
  }

  bool is_nested(const UniqueJson& state) const {
    return find(kNestedScales) || find(kNestedValues) || state.contains("nested_blocksize") ||
           state.contains("nested_offset") || state.contains("nested_dtype");
  }

  float offset_of(const UniqueJson& state) const {
    const UniqueJson& dtype = field(state, "nested_dtype");
    DSE_CHECK_USER(dtype == "float32", "{}: the quant_state of '{}' says nested_dtype {}; float32 is read", where_,
                   name_, dtype.dump());
    const UniqueJson& offset = field(state, "nested_offset");
    const double value = offset.is_number() ? offset.get<double>() : HUGE_VAL;
    DSE_CHECK_USER(std::abs(value) <= std::numeric_limits<float>::max(),
                   "{}: the quant_state of '{}' says nested_offset {}; a float32 number is meant", where_, name_,
                   offset.dump());
    return static_cast<float>(value);
  }

  const TensorPlaces& places_;
  const std::string& where_;
  const std::string& name_;
  const std::string& type_;
};

FourBitSource::FourBitSource(const TensorPlaces& places, const std::string& where) {
  std::map<std::string, std::string, std::less<>> types;  // by the name of the codes
  for (const auto& [name, place] : places) {
    const auto at = name.rfind(kState);
    if (at == name.npos) continue;
    const std::string type = name.substr(at + kState.size());
    const auto [known, added] = types.emplace(name.substr(0, at), type);
    DSE_CHECK_USER(added, "{}: '{}' has two kinds of quant_state, {} and {}", where, known->first, known->second, type);
    parts_.insert(name);
  }
  for (const auto& [name, place] : places) {
    for (const std::string_view ending : kParts) {
      if (!name.ends_with(ending)) continue;
      const std::string of = name.substr(0, name.size() - ending.size());
      const auto codes = places.find(of);
      if (types.contains(of)) {
        parts_.insert(name);
      } else {
        DSE_CHECK_USER(codes == places.end() || codes->second.entry->dtype != Dtype::U8,
                       "{}: there is '{}', but no '{}{}nf4' or …fp4: '{}' was not saved whole", where, name, of, kState,
                       of);
      }
    }
  }

  std::vector<TensorEntry> entries;
  for (const auto& [name, type] : types) {
    TensorEntry entry{.name = name};
    tensors_.push_back(Reader(places, where, name, type).read(entry.shape));
    entry.end = tensors_.back().codes.size();
    entries.push_back(std::move(entry));
  }
  set_entries(std::move(entries), where);
}

float FourBitSource::Tensor::scale_of(uint64_t index) const {
  if (nested_block == 0) return float_at(scales, index);
  const double value = nested_values[static_cast<size_t>(scales[index])];
  // The product in double is exact: it is rounded to float before the sum, on every machine.
  return static_cast<float>(value * float_at(nested_scales, index / nested_block)) + nested_offset;
}

void FourBitSource::read_f32(const TensorEntry& entry, uint64_t first, std::span<float> out) const {
  const Tensor& tensor = tensors_.at(static_cast<size_t>(&entry - entries().data()));
  const uint64_t all = entry.elements();
  DSE_CHECK(first <= all && out.size() <= all - first, "'{}' of {} elements: {} from {}", entry.name, all, out.size(),
            first);
  while (!out.empty()) {
    const uint64_t block = first / tensor.block;
    const auto piece = out.first(std::min<uint64_t>(out.size(), (block + 1) * tensor.block - first));
    std::array<float, 16> values = tensor.values;
    const float scale = tensor.scale_of(block);
    for (float& value : values) value *= scale;
    decode(tensor.codes, first, values, piece);
    first += piece.size();
    out = out.subspan(piece.size());
  }
}

}  // namespace dsengine
