// Plain text for language modelling: a file, or the files of a folder, cut into records as `split` says.
//   file        one record a file
//   paragraph   what blank lines separate, without the line breaks around it
//   line        one record a line
//   chunk       pieces of at most chunk_bytes; each ends before white space where its second half has some, else
//               between two characters. Put together again they are the file.
// Pieces of white space alone, and those under min_bytes, are left out. All is read when it is opened.
#include <dsengine/dataset.hpp>

#include <algorithm>
#include <filesystem>

#include "text_file.h"

namespace {

namespace fs = std::filesystem;
constexpr const char* kWhiteSpace = " \t\r\n\f\v";

// The files of a folder by name, so that records have the same order on every machine.
template <class Iterator>
std::vector<std::string> text_files(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : Iterator(folder)) {
    const auto ending = entry.path().extension();
    if (entry.is_regular_file() && (ending == ".txt" || ending == ".md" || ending == ".gz"))
      files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) throw dse::Failure(folder + ": no .txt, .md or .gz file is in the folder", DSE_BAD_DATA);
  return files;
}

}  // namespace

class TextFiles {
 public:
  static constexpr const char* summary = "plain text for language modelling, from a file or a folder, plain or gzip";

  TextFiles(dse::Options& o, const std::string& path)
      : path_(path),
        split_(o.string("split", "chunk", "what a record is", "file|paragraph|line|chunk")),
        chunk_bytes_(size_t(o.integer("chunk_bytes", 2000, "chunk: bytes of a record, at most", {4, 1e9}))),
        min_bytes_(size_t(o.integer("min_bytes", 1, "leave out records of fewer bytes", {1, 1e9}))),
        recursive_(o.boolean("recursive", false, "a folder: its subfolders too")) {
    if (path.empty()) return;  // options alone are wanted
    if (!fs::is_directory(path))
      add_file(path);
    else
      for (const auto& file :
           recursive_ ? text_files<fs::recursive_directory_iterator>(path) : text_files<fs::directory_iterator>(path))
        add_file(file);
    if (records_.empty())
      throw dse::Failure(path + ": no text is in it" +
                             (left_out_ ? " but " + std::to_string(left_out_) +
                                              " records under min_bytes = " + std::to_string(min_bytes_)
                                        : ""),
                         DSE_BAD_DATA);
  }

  int64_t size() const { return int64_t(records_.size()); }

  dse::Record get(int64_t index) const {
    if (index < 0 || index >= size()) throw dse::Failure(path_ + ": no such record", DSE_BAD_DATA);
    dse::Record record;
    record.text = records_[size_t(index)];
    return record;
  }

 private:
  void add_file(const std::string& file) {
    const std::string whole = read_text_file(file);
    if (const auto bad = invalid_text(whole))
      throw dse::Failure(
          file + ": byte " + std::to_string(*bad) + " of the text is " + (whole[*bad] ? "not UTF-8" : "zero"),
          DSE_BAD_DATA);
    std::string_view text = whole;
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // a byte order mark is no text
    if (split_ == "file")
      add(text);
    else if (split_ == "chunk")
      add_chunks(text);
    else
      add_lines(text);
  }

  void add(std::string_view piece) {
    if (piece.find_first_not_of(kWhiteSpace) == piece.npos) return;
    if (piece.size() < min_bytes_)
      ++left_out_;
    else
      records_.emplace_back(piece);
  }

  // Lines, or the runs of lines between blank ones.
  void add_lines(std::string_view text) {
    size_t begin = 0, end = 0;  // of the paragraph so far; equal where there is none
    const auto flush = [&] {
      if (end > begin) add(text.substr(begin, end - begin));
      begin = end;
    };
    for (size_t at = 0, next = 0; at < text.size(); at = next + 1) {
      next = std::min(text.find('\n', at), text.size());
      const size_t last = next > at && text[next - 1] == '\r' ? next - 1 : next;
      const bool blank = text.substr(at, last - at).find_first_not_of(kWhiteSpace) == text.npos;
      if (blank || split_ == "line") flush();
      if (blank) continue;
      if (end == begin) begin = at;
      end = last;
    }
    flush();
  }

  void add_chunks(std::string_view text) {
    for (size_t begin = 0, end = 0; begin < text.size(); begin = end) {
      end = begin;
      size_t space = text.npos;  // the last white space in the second half
      while (end < text.size()) {
        const size_t size = character_size(text, end);
        const bool white = std::string_view(kWhiteSpace).find(text[end]) != text.npos;
        if (white && end - begin >= chunk_bytes_ / 2) space = end;
        if (end - begin + size > chunk_bytes_) break;
        end += size;
      }
      if (end < text.size() && space != text.npos && space > begin) end = space;
      add(text.substr(begin, end - begin));
    }
  }

  std::string path_, split_;
  size_t chunk_bytes_, min_bytes_, left_out_ = 0;
  bool recursive_;
  std::vector<std::string> records_;
};
DSE_DATASET("text", TextFiles)
