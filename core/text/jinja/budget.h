// What ends the rendering of a chat template before its end: a mistake of the template's, or a budget that is spent.
//
//   Budget budget;
//   budget.step(), budget.allocate(text.size());              // Error where there was too much of it
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace dsengine::jinja {

// What a template did wrong, without the line; the interpreter adds it.
class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What a rendering may use: it bounds time and memory of any template.
struct Budget {
  int64_t steps = 10'000'000, bytes = int64_t{256} << 20;
  void step(int64_t n = 1) {
    if ((steps -= n) < 0) throw Error("the template takes too many steps: it may loop without end");
  }
  // A search for `wanted` bytes in `text` ones, which may compare each with each.
  void search(size_t text, size_t wanted) { step(int64_t(text / 64) + int64_t(double(text) * double(wanted) / 4096)); }
  void allocate(size_t n) {
    if ((bytes -= int64_t(n)) < 0) throw Error("the template makes more than 256 MB of values");
  }
};

}  // namespace dsengine::jinja
