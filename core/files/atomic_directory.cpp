#include "files/atomic_directory.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <span>
#include <string>

#include "base/check.h"
#include "base/directory.h"
#include "files/entries.h"
#include "files/output_file.h"

// The states of a commit of F, with its temporary directory T and O = ".F.old"; "|" is where it may stop:
//   F old, T new  |  O old, T new  |  O old, F new  |  T old, F new  |  F new
// O is always complete: it is renamed to T before its files are removed. So recover() may take it back
// whenever F is missing, and drop it otherwise.
namespace dsengine {
namespace {

namespace fs = std::filesystem;

fs::path sibling(const fs::path& path, const std::string& ending) {
  return path.parent_path() / fmt::format(".{}{}", path.filename().string(), ending);
}
std::string temporary_ending() { return fmt::format(".tmp-{}", ::getpid()); }
fs::path aside_of(const fs::path& final_path) { return sibling(final_path, ".old"); }

// Absolute and without "." or a slash at the end, so that it has a name and a parent.
fs::path normal(const fs::path& path) {
  fs::path result = fs::absolute(path).lexically_normal();
  if (result.filename().empty()) result = result.parent_path();
  DSE_CHECK_USER(result.has_filename(), "{}: cannot be replaced as a whole", path.string());
  return result;
}

// Runs one step on the file system; its failure is one clear line.
template <class Step>
void attempt(const char* what, const fs::path& path, Step step) {
  std::error_code error;
  step(error);
  DSE_CHECK_USER(!error, "cannot {} {}: {}", what, path.string(), error.message());
}
void move_to(const fs::path& from, const fs::path& to) {
  attempt("write", to, [&](std::error_code& error) { fs::rename(from, to, error); });
}
void remove_tree(const fs::path& path) {
  attempt("remove", path, [&](std::error_code& error) { fs::remove_all(path, error); });
}
bool is_there(const fs::path& path) { return fs::exists(fs::symlink_status(path)); }

void sync_tree(const fs::path& directory) {
  for (const auto& item : entries_of(directory)) {
    const auto type = item.symlink_status().type();
    if (type == fs::file_type::directory) sync_tree(item.path());
    if (type == fs::file_type::regular) sync_path(item.path());
  }
  sync_path(directory);
}

// Whether ".F.tmp-<pid>" is a leftover: its process is gone, or is this one (of one path there is one
// writer).
bool is_leftover(const std::string& name, const std::string& prefix) {
  constexpr std::string_view mark = ".tmp-";
  const auto at = name.rfind(mark);
  if (at == name.npos || !name.starts_with(prefix)) return false;
  pid_t pid = 0;
  const char* const end = name.data() + name.size();
  const auto [parsed, error] = std::from_chars(name.data() + at + mark.size(), end, pid);
  if (error != std::errc() || parsed != end || pid <= 0) return false;
  return pid == ::getpid() || (::kill(pid, 0) != 0 && errno == ESRCH);
}

// Removes the leftovers in a directory whose names begin so.
void sweep(const fs::path& directory, const std::string& prefix) {
  for (const auto& item : entries_of(directory))
    if (is_leftover(item.path().filename().string(), prefix)) remove_tree(item.path());
}

}  // namespace

AtomicDirectory::AtomicDirectory(const fs::path& final_path)
    : final_(normal(final_path)), temporary_(sibling(final_, temporary_ending())) {
  DSE_CHECK_USER(!is_there(final_) || fs::is_directory(final_), "{}: a file is where a directory shall be written",
                 final_.string());
  make_directories(final_.parent_path());
  recover(final_);
  attempt("create", temporary_, [&](std::error_code& error) { fs::create_directory(temporary_, error); });
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;  // a destructor cannot report it; recover() removes what stays
  if (!committed_) fs::remove_all(temporary_, ignored);
}

void AtomicDirectory::commit() {
  DSE_CHECK(!committed_, "{} is committed twice", final_.string());
  const fs::path parent = final_.parent_path(), aside = aside_of(final_);
  sync_tree(temporary_);
  const bool replaces = is_there(final_);
  if (replaces) move_to(final_, aside);
  move_to(temporary_, final_);
  committed_ = true;
  sync_path(parent);
  if (!replaces) return;
  move_to(aside, temporary_);
  remove_tree(temporary_);
}

void AtomicDirectory::recover(const fs::path& final_path) {
  const fs::path path = normal(final_path), parent = path.parent_path(), aside = aside_of(path);
  if (!fs::is_directory(parent)) return;
  if (is_there(aside)) {
    const fs::path target = is_there(path) ? sibling(path, temporary_ending()) : path;
    if (target != path) remove_tree(target);
    move_to(aside, target);
    sync_path(parent);
  }
  sweep(parent, sibling(path, ".tmp-").filename().string());
}

void remove_directory(const fs::path& path) {
  const fs::path target = normal(path), leftover = sibling(target, temporary_ending());
  move_to(target, leftover);
  remove_tree(leftover);
}

void remove_leftovers(const fs::path& directory) { sweep(directory, "."); }

AtomicFile::AtomicFile(const fs::path& path) : path_(path) {
  const auto type = fs::status(path).type();  // throws where that cannot be known
  if (type != fs::file_type::not_found && type != fs::file_type::regular && type != fs::file_type::directory) {
    device_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    DSE_CHECK_USER(device_ >= 0, "cannot write {}: {}", path.string(), std::strerror(errno));
    return;
  }
  target_ = fs::is_symlink(path) ? normal(fs::weakly_canonical(path)) : normal(path);
  const std::string prefix = sibling(target_, ".tmp-").filename().string();
  // What cannot be removed, or even seen, is no reason not to write.
  std::error_code none;
  for (fs::directory_iterator item(target_.parent_path(), none), end; !none && item != end; item.increment(none)) {
    std::error_code ignored;
    if (is_leftover(item->path().filename().string(), prefix)) fs::remove(item->path(), ignored);
  }
  file_.emplace(sibling(target_, temporary_ending()));
}

AtomicFile::~AtomicFile() {
  if (device_ >= 0) ::close(device_);
}

void AtomicFile::write(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  if (device_ >= 0)
    write_all(device_, bytes, path_);
  else
    file_->write(bytes);
}

void AtomicFile::commit() {
  if (device_ >= 0) return;
  file_->close();
  std::error_code error;
  fs::rename(file_->path(), target_, error);
  if (error) {
    std::error_code ignored;
    fs::remove(file_->path(), ignored);
    user_error(fmt::format("cannot write {}: {}", path_.string(), error.message()));
  }
  sync_path(target_.parent_path());
}

void atomic_write_file(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace dsengine
