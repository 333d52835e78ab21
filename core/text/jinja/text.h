// Texts of chat templates: built piece by piece with their origins, and read by characters as Python counts them.
//
//   TextBuilder out(budget);
//   out.add(*greeting), out.add(", ", scaffold);
//   TextPtr whole = out.take();
//   Text middle = slice(*whole, 2, 5);                       // characters 2, 3, 4
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/budget.h"
#include "text/jinja/origin.h"

namespace dsengine::jinja {

class TextBuilder {
 public:
  explicit TextBuilder(Budget& budget) : budget_(budget) {}
  void add(const Text& text) { add(text, 0, text.bytes.size()); }
  void add(const Text& text, size_t from, size_t to) {
    budget_.allocate(to - from);
    text_.bytes.append(text.bytes, from, to - from), text_.origin.append(text.origin, from, to - from);
  }
  void add(std::string_view bytes, char origin) {
    budget_.allocate(bytes.size());
    text_.bytes.append(bytes), text_.origin.append(bytes.size(), origin);
  }
  void mark(size_t from, char bits) {  // adds bits to what was added since
    for (size_t i = from; i < text_.origin.size(); ++i) text_.origin[i] = char(text_.origin[i] | bits);
  }
  size_t size() const { return text_.bytes.size(); }
  Text take_text() { return std::move(text_); }
  TextPtr take() { return std::make_shared<const Text>(std::move(text_)); }

 private:
  Budget& budget_;
  Text text_;
};

int64_t characters(const Text& text);
// The byte at which character i begins; the text's size for i = characters.
size_t byte_of(const Text& text, int64_t character);
Text cut(const Text& text, size_t from, size_t to);  // bytes

bool is_space(char32_t code);                                                 // Python's str.isspace
Text strip(const Text& text, const Text* characters, bool left, bool right);  // null: white space
TextPtr replace(const Text& text, const Text& old, const Text& by, int64_t count, Budget& budget);
enum class Case { upper, lower, capitalize, title, filter_title };
TextPtr change_case(const Text& text, Case how, Budget& budget);
std::vector<Text> split(const Text& text, const Text* separator, int64_t most, bool from_right, Budget& budget);
std::vector<Text> split_lines(const Text& text, bool keep_ends, Budget& budget);

}  // namespace dsengine::jinja
