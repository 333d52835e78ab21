// A text that knows of each of its bytes who wrote it: so a special token of a chat template's is told from one that a
// user spelled.
//
//   jinja::Text text{"<s>hi", std::string(3, jinja::scaffold) + std::string(2, jinja::content)};
#pragma once
#include <memory>
#include <string>

namespace dsengine::jinja {

// Of a byte of text; bits.
inline constexpr char scaffold = 0, content = 1, generated = 2;  // generated: within {% generation %}

struct Text {
  std::string bytes, origin;  // equally long
};
using TextPtr = std::shared_ptr<const Text>;

}  // namespace dsengine::jinja
