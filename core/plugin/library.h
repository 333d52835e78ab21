// One plugin file, opened and checked. It stays loaded until the process ends, whatever becomes of this
// object: unloading code with thread-local data, unique symbols or a CUDA context crashes.
//
//   PluginLibrary library("lib/dsengine/libdse_ppo.so");             // or with a SHA-256 that must match
//   for (const Item& item : library.items()) fmt::print("{}\n", item.name);
//   try { PluginLibrary("bad.so"); } catch (const UserError& e) {}  // "plugin /…/bad.so: what; what to do"
//
// Every fault is one UserError line. The pin and the file's shape are checked before any code of it runs, and the log
// names the file before it is opened. What its constructor does to the floating-point state is put back.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "plugin/item.h"

namespace dsengine {

class PluginLibrary {
 public:
  explicit PluginLibrary(const std::filesystem::path& file, const std::string& pinned_sha256 = "");

  const std::filesystem::path& file() const { return file_; }  // absolute
  const std::string& name() const { return name_; }
  const std::string& version() const { return version_; }
  const std::string& sha256() const { return sha256_; }
  const std::vector<Item>& items() const { return items_; }

  // UserError unless it is a whole library for this machine; its SHA-256, and UserError unless that is the pinned one.
  static void check_form(const std::filesystem::path& file);
  static std::string check_file(const std::filesystem::path& file, const std::string& pinned_sha256 = "");

 private:
  const dse_plugin* enter() const;
  void read_plugin(const dse_plugin* raw);

  std::filesystem::path file_;
  std::string what_;  // "plugin /path/libdse_x.so", how errors begin
  std::string name_, version_, sha256_;
  std::vector<Item> items_;
};

}  // namespace dsengine
