// A directory, or a file, that changes as a whole: whatever moment the machine stops at, the old or the
// new content is there complete, and on the disk. One writer at a time for one path.
//
//   AtomicDirectory save("runs/hh/checkpoint");
//   write_text(save.path() / "manifest.json", text);
//   save.commit();
#pragma once
#include <filesystem>
#include <string_view>

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

// Removes what writers that no longer run left in a directory, of whatever file or directory. For a directory
// that has one writing process.
void remove_leftovers(const std::filesystem::path& directory);

// Replaces the file as a whole; the one that a symbolic link names. A pipe or a device is written to.
void atomic_write_file(const std::filesystem::path& path, std::string_view text);

}  // namespace dsengine
