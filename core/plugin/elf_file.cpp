#include "plugin/elf_file.h"

#include <elf.h>
#include <link.h>

#include <cstring>
#include <fstream>

namespace dsengine {
namespace {

#if defined(__x86_64__)
constexpr auto kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr auto kMachine = EM_AARCH64;
#else
#error "name this machine's ELF number"
#endif
static_assert(sizeof(void*) == 8, "the ABI is LP64");

template <class T>
bool read_at(std::ifstream& file, uint64_t offset, T& value) {
  file.seekg(static_cast<std::streamoff>(offset));
  return static_cast<bool>(file.read(reinterpret_cast<char*>(&value), sizeof value));
}

// The notes of one section, laid end to end, owner and text each filled up to four bytes. False: malformed.
bool read_notes(const std::string& section, std::vector<std::string>& texts) {
  constexpr std::string_view owner{"dsengine", 9};  // its final zero counts
  const auto filled = [](uint64_t size) { return (size + 3) / 4 * 4; };
  for (uint64_t at = 0; at < section.size();) {
    ElfW(Nhdr) note;
    if (section.size() - at < sizeof note) return false;
    std::memcpy(&note, section.data() + at, sizeof note);
    at += sizeof note;
    if (section.size() - at < filled(note.n_namesz) + filled(note.n_descsz)) return false;
    if (section.compare(at, note.n_namesz, owner) == 0) {
      if (note.n_type != 1) return false;
      texts.push_back(section.substr(at + filled(note.n_namesz), note.n_descsz));
    }
    at += filled(note.n_namesz) + filled(note.n_descsz);
  }
  return true;
}

}  // namespace

std::vector<std::string> item_notes(const std::filesystem::path& path) {
  constexpr uint64_t limit = 1 << 20;  // bytes that a library's notes may have
  std::ifstream file(path, std::ios::binary);
  ElfW(Ehdr) header;
  std::vector<std::string> texts;
  if (!read_at(file, 0, header)) return {};
  for (uint64_t i = 0; i < header.e_shnum; ++i) {
    ElfW(Shdr) section;
    if (!read_at(file, header.e_shoff + i * header.e_shentsize, section)) return {};
    if (section.sh_type != SHT_NOTE || section.sh_size > limit) continue;
    std::string bytes(section.sh_size, '\0');
    file.seekg(static_cast<std::streamoff>(section.sh_offset));
    if (!file.read(bytes.data(), std::streamsize(bytes.size())) || !read_notes(bytes, texts)) return {};
  }
  return texts;
}

std::string elf_fault(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return "cannot be read; check its permissions";
  const uint64_t size = std::filesystem::file_size(path);
  unsigned char magic[SELFMAG] = {};
  if (!read_at(file, 0, magic) || std::memcmp(magic, ELFMAG, SELFMAG) != 0)
    return "is not an ELF file; give a shared library built with dsengine_add_plugin";
  constexpr const char* truncated = "is truncated; copy or build it again";
  ElfW(Ehdr) header;
  if (!read_at(file, 0, header)) return truncated;
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != kMachine)
    return "was built for another machine; rebuild it here";
  if (header.e_type != ET_DYN) return "is not a shared library; link it with -shared";
  for (uint64_t i = 0; i < header.e_phnum; ++i) {
    ElfW(Phdr) segment;
    if (!read_at(file, header.e_phoff + i * header.e_phentsize, segment)) return truncated;
    if (segment.p_type == PT_LOAD && (segment.p_offset > size || segment.p_filesz > size - segment.p_offset))
      return truncated;
  }
  const uint64_t sections_end = header.e_shoff + uint64_t{header.e_shentsize} * header.e_shnum;
  return sections_end > size ? truncated : "";
}

}  // namespace dsengine
