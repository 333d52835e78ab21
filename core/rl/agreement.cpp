#include "rl/agreement.h"

#include <cstring>

#include "base/check.h"

namespace dsengine {
namespace {

template <class T>
void put(std::string& bytes, const T& value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <class T>
T take(const std::string& bytes, size_t& at) {
  T value;
  DSE_CHECK(at + sizeof value <= bytes.size(), "{} bytes", bytes.size());
  std::memcpy(&value, bytes.data() + at, sizeof value);
  at += sizeof value;
  return value;
}

}  // namespace

void MetricParts::add_to(MetricSink& sink) const {
  for (const auto& part : parts_) sink.add(part.name, part.value, part.weight);
}

std::string MetricParts::bytes() const {
  std::string bytes;
  for (const auto& part : parts_) {
    put(bytes, part.name.size());
    bytes += part.name;
    put(bytes, part.value), put(bytes, part.weight);
  }
  return bytes;
}

MetricParts MetricParts::of_bytes(const std::string& bytes) {
  MetricParts result;
  for (size_t at = 0; at < bytes.size();) {
    const auto size = take<size_t>(bytes, at);
    std::string name = bytes.substr(at, size);
    at += size;
    const auto value = take<double>(bytes, at);
    result.add(name, value, take<double>(bytes, at));
  }
  return result;
}

void agree_metrics(const MetricParts& own, Communicator& ranks, MetricSink& means) {
  for (const auto& bytes : ranks.gather_bytes(own.bytes())) MetricParts::of_bytes(bytes).add_to(means);
}

std::vector<float> entries_of(const std::vector<int64_t>& offsets, const std::vector<int64_t>& rows,
                              const std::vector<float>& column) {
  std::vector<float> entries;
  if (column.empty()) return entries;
  for (const auto r : rows)
    entries.insert(entries.end(), column.begin() + offsets[size_t(r)], column.begin() + offsets[size_t(r) + 1]);
  return entries;
}

void put_entries(const std::vector<int64_t>& offsets, const std::vector<int64_t>& rows, std::span<const float> entries,
                 std::vector<float>& column) {
  if (column.empty()) return;
  auto next = entries.begin();
  for (const auto r : rows)
    for (int64_t t = offsets[size_t(r)]; t < offsets[size_t(r) + 1]; ++t) column[size_t(t)] = *next++;
}

void gather_rows(Communicator& ranks, const std::vector<int64_t>& offsets,
                 const std::vector<std::vector<int64_t>>& rows, const std::vector<std::vector<float>*>& columns) {
  std::string own;
  for (const auto* column : columns) {
    const auto entries = entries_of(offsets, rows[size_t(ranks.rank())], *column);
    own.append(reinterpret_cast<const char*>(entries.data()), entries.size() * sizeof(float));
  }
  const auto all = ranks.gather_bytes(std::move(own));
  for (size_t r = 0; r < all.size(); ++r) {
    int64_t count = 0;
    for (const auto row : rows[r]) count += offsets[size_t(row) + 1] - offsets[size_t(row)];
    size_t at = 0;
    for (auto* column : columns) {
      if (column->empty()) continue;
      std::vector<float> entries(static_cast<size_t>(count));
      DSE_CHECK(at + entries.size() * sizeof(float) <= all[r].size(), "{} bytes of rank {}", all[r].size(), r);
      if (count > 0) std::memcpy(entries.data(), all[r].data() + at, entries.size() * sizeof(float));
      at += entries.size() * sizeof(float);
      put_entries(offsets, rows[r], entries, *column);
    }
    DSE_CHECK(at == all[r].size(), "{} bytes of rank {}", all[r].size(), r);
  }
}

void gather_answers(Communicator& ranks, const std::vector<std::vector<int64_t>>& rows,
                    std::vector<Generation>& answers) {
  if (ranks.size() == 1) return;
  std::string own;
  for (const auto row : rows[size_t(ranks.rank())]) {
    const Generation& answer = answers[size_t(row)];
    put(own, answer.tokens.size()), put(own, answer.finish);
    for (const auto token : answer.tokens) put(own, token);
    for (const auto logp : answer.logp) put(own, logp);
  }
  const auto all = ranks.gather_bytes(std::move(own));
  for (size_t r = 0; r < all.size(); ++r) {
    size_t at = 0;
    for (const auto row : rows[r]) {
      Generation& answer = answers[size_t(row)];
      answer.tokens.resize(take<size_t>(all[r], at)), answer.logp.resize(answer.tokens.size());
      answer.finish = take<Finish>(all[r], at);
      for (auto& token : answer.tokens) token = take<int32_t>(all[r], at);
      for (auto& logp : answer.logp) logp = take<float>(all[r], at);
    }
    DSE_CHECK(at == all[r].size(), "{} bytes of rank {}", all[r].size(), r);
  }
}

}  // namespace dsengine
