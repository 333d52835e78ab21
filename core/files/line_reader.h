// The lines of a file, a pipe or standard input, one after the other: memory does not grow with the input.
//
//   LineReader input("prompts.jsonl");               // "-": standard input
//   for (std::string line; input.next(line);) …      // input.number(): its number in the file
#pragma once
#include <cstddef>
#include <string>

namespace dsengine {

class LineReader {
 public:
  static constexpr size_t kLongest = size_t(1) << 28;  // bytes of a line

  // UserError where it cannot be opened.
  explicit LineReader(std::string path, size_t longest = kLongest);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // The next line without its end; false where there is none. A read that fails is a UserError, never an end. Of a line
  // beyond `longest` the beginning, which says whole() == false.
  bool next(std::string& line);
  size_t number() const { return number_; }  // of the last line, from 1
  bool whole() const { return whole_; }      // the last line is

 private:
  bool fill();

  std::string path_, buffer_;
  size_t longest_;
  int file_ = -1;
  size_t at_ = 0, number_ = 0;  // at_: what of the buffer is read
  bool whole_ = true;
};

}  // namespace dsengine
