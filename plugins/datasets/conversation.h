// The turns of a record, and where two conversations part.
//
//   auto chosen = parse_transcript("\n\nHuman: Hi\n\nAssistant: Hello"), rejected = …;
//   if (const auto at = parting(chosen, rejected)) …      // both answer there, each otherwise, what stands before
//   alike
#pragma once
#include <dsengine/dataset.hpp>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

namespace {

using Turns = std::vector<dse::Message>;

// The turns of an hh-rlhf transcript; empty where the text is none.
inline Turns parse_transcript(const std::string& text) {
  const std::string human = "\n\nHuman:", assistant = "\n\nAssistant:";
  Turns turns;
  if (!text.starts_with(human)) return turns;
  for (size_t at = 0; at < text.size();) {
    const bool from_human = text.compare(at, human.size(), human) == 0;
    const size_t begin = at + (from_human ? human : assistant).size();
    at = std::min(text.find(human, begin), text.find(assistant, begin));
    std::string content = text.substr(begin, at == std::string::npos ? at : at - begin);
    content.erase(0, content.find_first_not_of(' '));
    turns.push_back({from_human ? "user" : "assistant", content, !from_human});
  }
  return turns;
}

inline bool same_turn(const dse::Message& a, const dse::Message& b) {
  return a.role == b.role && a.content == b.content;
}

inline bool begins_with(const Turns& turns, const Turns& beginning) {
  return turns.size() >= beginning.size() && std::equal(beginning.begin(), beginning.end(), turns.begin(), same_turn);
}

// The first turn in which two conversations differ, where both answer the same there. Nothing where there is no such
// turn (one is the other's beginning), or where somebody else's turn differs: what follows answers two questions.
inline std::optional<size_t> parting(const Turns& a, const Turns& b) {
  const auto at = size_t(std::mismatch(a.begin(), a.end(), b.begin(), b.end(), same_turn).first - a.begin());
  if (at == 0 || at >= a.size() || at >= b.size()) return std::nullopt;
  const bool answers = a[at].role == "assistant" && b[at].role == "assistant" && a[at - 1].role != "assistant";
  return answers ? std::optional(at) : std::nullopt;
}

// Whether `prompt` is what a user says in the conversation, white space around it apart.
inline bool asks(const Turns& turns, const std::string& prompt) {
  const auto trimmed = [](const std::string& text) {
    const auto first = text.find_first_not_of(" \t\r\n");
    return first == text.npos ? "" : text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
  };
  return std::any_of(turns.begin(), turns.end(), [&](const dse::Message& turn) {
    return turn.role != "assistant" && trimmed(turn.content) == trimmed(prompt);
  });
}

}  // namespace
