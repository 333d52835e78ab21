// A directory, or a file, that changes as a whole: whatever moment the machine stops at, the old or the
// new content is there complete, and on the disk. One writer at a time for one path.
//
//   AtomicDirectory save("runs/hh/checkpoint");
//   write_text(save.path() / "manifest.json", text);
//   save.commit();
#pragma once
#include <filesystem>
#include <optional>
#include <string_view>

#include "files/output_file.h"

namespace dsengine {

class AtomicDirectory {
 public:
  // Creates the empty sibling ".<name>.tmp-<pid>" (and the parents), after recover(final_path).
  explicit AtomicDirectory(const std::filesystem::path& final_path);
  // Without commit(), what was written is removed.
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  // Where to write, until commit().
  const std::filesystem::path& path() const { return temporary_; }
  // Puts what was written in the place of final_path, once it is on the disk.
  void commit();

  // What the writer does first after a stop: puts back a directory that a commit had moved aside and not
  // yet replaced, and removes leftovers of writers that no longer run.
  static void recover(const std::filesystem::path& final_path);

 private:
  std::filesystem::path final_, temporary_;
  bool committed_ = false;
};

// Removes a directory and all in it: whatever moment the machine stops at, or a call fails, it is there complete or it
// is gone; what is left of it is a leftover then. UserError where it stays.
void remove_directory(const std::filesystem::path& path);

// Removes what writers that no longer run left in a directory, of whatever file or directory. For a directory
// that has one writing process.
void remove_leftovers(const std::filesystem::path& directory);

// A file that is there as a whole with commit(), or not at all; the one that a symbolic link names. A pipe or a device
// is written to as the text comes.
//
//   AtomicFile out("answers.jsonl");
//   for (…) out.write(line);
//   out.commit();
class AtomicFile {
 public:
  // Creates ".<name>.tmp-<pid>" beside it, after what writers that no longer run left of it is removed.
  explicit AtomicFile(const std::filesystem::path& path);
  // Without commit(), what was written is removed.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view text);
  void commit();

 private:
  std::filesystem::path path_, target_;  // as given; what a link names
  std::optional<OutputFile> file_;
  int device_ = -1;  // instead of it, where the path is a pipe or a device
};

// An AtomicFile of this text.
void atomic_write_file(const std::filesystem::path& path, std::string_view text);

}  // namespace dsengine
