#include "text/bpe.h"

#include <algorithm>
#include <queue>

#include "base/check.h"
#include "text/utf8.h"

namespace dsengine {
namespace {

constexpr TokenId most_tokens = 1 << 24;    // a larger id is a damaged file
constexpr size_t longest_cached_word = 64;  // bytes
constexpr size_t words_per_shard = 8192;    // about 1 MiB each when full

constexpr std::string_view mark = "▁";  // SentencePiece's space

// Where `text`, from `from` on, goes on from another character to the mark; its size if nowhere.
size_t find_cut(std::string_view text, size_t from) {
  for (size_t at = from; (at = text.find(mark, at)) != std::string_view::npos; at += mark.size()) {
    if (at > from && !text.substr(0, at).ends_with(mark)) return at;
  }
  return text.size();
}

struct Candidate {  // a pair of neighbours that could merge
  int32_t rank;
  int32_t at;  // of the left one
  TokenId left, right, result;
  bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
};

}  // namespace

struct Bpe::Symbol {
  TokenId id;              // -1: merged into its left neighbour
  int32_t previous, next;  // -1: none
};

Bpe::Bpe(Vocabulary vocabulary, const Merges& merges, Options options, const std::string& where)
    : options_(std::move(options)), cache_(std::make_unique<std::array<CacheShard, 16>>()) {
  TokenId highest = -1;
  for (const auto& [token, id] : vocabulary) {
    DSE_CHECK_USER(id >= 0 && id < most_tokens, "{}: token {} has id {}, not in 0..{}", where, token, id,
                   most_tokens - 1);
    highest = std::max(highest, id);
  }
  tokens_.resize(static_cast<size_t>(highest + 1));
  ids_.reserve(vocabulary.size());
  for (auto& [token, id] : vocabulary) {
    DSE_CHECK_USER(tokens_[id].empty(), "{}: tokens {} and {} both have id {}", where, tokens_[id], token, id);
    tokens_[id] = std::move(token);
    ids_.emplace(tokens_[id], id);
  }
  cuts_at_marks_ = ids_.contains(mark) &&
                   std::ranges::all_of(tokens_, [](const auto& token) { return find_cut(token, 0) == token.size(); });
  merges_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    const auto left_id = id_of(left), right_id = id_of(right), result = id_of(left + right);
    DSE_CHECK_USER(left_id && right_id && result, "{}: merge {} ('{}' with '{}') is not in the vocabulary", where, rank,
                   left, right);
    merges_.insert_or_assign(pair_key(*left_id, *right_id), Merge{static_cast<int32_t>(rank), *result});
  }
  if (options_.unk_token) {
    unk_id_ = id_of(*options_.unk_token);
    DSE_CHECK_USER(unk_id_, "{}: unk_token {} is not in the vocabulary", where, *options_.unk_token);
  }
  for (int byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = options_.byte_fallback ? id_of(fmt::format("<0x{:02X}>", byte)).value_or(-1) : -1;
  }
}

std::optional<TokenId> Bpe::id_of(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

std::string_view Bpe::token_of(TokenId id) const {
  return id >= 0 && id <= highest_id() ? std::string_view(tokens_[id]) : std::string_view();
}

const Bpe::Merge* Bpe::find_merge(TokenId left, TokenId right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::encode(std::string_view word, std::vector<TokenId>& ids) const {
  if (options_.ignore_merges) {
    if (const auto id = id_of(word)) return ids.push_back(*id);
  }
  if (!cuts_at_marks_) return encode_cached(word, ids);
  // A tokenizer that cuts no words gives a whole text as one. No merge crosses such a cut, so the pieces
  // have the same tokens, and most of them are in the cache.
  for (size_t begin = 0, end = 0; begin < word.size(); begin = end) {
    end = find_cut(word, begin);
    encode_cached(word.substr(begin, end - begin), ids);
  }
}

void Bpe::encode_cached(std::string_view word, std::vector<TokenId>& ids) const {
  if (word.size() > longest_cached_word) return encode_uncached(word, ids);
  CacheShard& shard = (*cache_)[TextHash{}(word) >> 60];
  {
    const std::lock_guard lock(shard.mutex);
    if (const auto hit = shard.words.find(word); hit != shard.words.end()) {
      ids.insert(ids.end(), hit->second.begin(), hit->second.end());
      return;
    }
  }
  const size_t before = ids.size();
  encode_uncached(word, ids);
  const std::lock_guard lock(shard.mutex);
  if (shard.words.size() < words_per_shard) {
    shard.words.try_emplace(std::string(word), ids.begin() + static_cast<std::ptrdiff_t>(before), ids.end());
  }
}

void Bpe::encode_uncached(std::string_view word, std::vector<TokenId>& ids) const {
  std::vector<Symbol> symbols = initial_symbols(word);
  merge_all(symbols);
  for (const Symbol& symbol : symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

// One symbol a character. As in Hugging Face's tokenizers, an unknown token waits for the next known
// character, so that a run of them can be fused; characters that fall back to bytes do not end the run.
std::vector<Bpe::Symbol> Bpe::initial_symbols(std::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  const auto add = [&](TokenId id) {
    const auto at = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, at - 1, at + 1});
  };
  bool unknown_waits = false;
  for (size_t at = 0, bytes = 0; at < word.size(); at += bytes) {
    bytes = char_bytes(word, at);
    const std::string_view character = word.substr(at, bytes);
    if (const auto id = id_of(character)) {
      if (std::exchange(unknown_waits, false)) add(*unk_id_);
      add(*id);
      continue;
    }
    const auto byte_id = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
    if (std::ranges::all_of(character, [&](char byte) { return byte_id(byte) >= 0; })) {
      for (const char byte : character) add(byte_id(byte));
    } else if (unk_id_) {
      if (unknown_waits && !options_.fuse_unk) add(*unk_id_);
      unknown_waits = true;
    }
  }
  if (unknown_waits) add(*unk_id_);
  if (!symbols.empty()) symbols.back().next = -1;
  return symbols;
}

void Bpe::merge_all(std::vector<Symbol>& symbols) const {
  std::vector<Candidate> storage;
  storage.reserve(symbols.size());
  const auto candidate = [&](int32_t at) -> std::optional<Candidate> {
    const int32_t next = symbols[at].next;
    if (next < 0) return std::nullopt;
    const TokenId left = symbols[at].id, right = symbols[next].id;
    const Merge* merge = find_merge(left, right);
    if (!merge) return std::nullopt;
    return Candidate{merge->rank, at, left, right, merge->result};
  };
  for (size_t at = 0; at < symbols.size(); ++at) {
    if (const auto pair = candidate(static_cast<int32_t>(at))) storage.push_back(*pair);
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue({}, std::move(storage));
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.at];
    if (left.id != best.left || left.next < 0 || symbols[left.next].id != best.right) continue;  // out of date

    Symbol& right = symbols[left.next];
    left.id = best.result;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[left.next].previous = best.at;

    if (left.previous >= 0) {
      if (const auto pair = candidate(left.previous)) queue.push(*pair);
    }
    if (const auto pair = candidate(best.at)) queue.push(*pair);
  }
}

}  // namespace dsengine
