#include "run/tensorboard.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdint>
#include <cstring>
#include <sstream>
#include <vector>

#include "base/check.h"
#include "base/directory.h"
#include "files/atomic_directory.h"
#include "files/entries.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

// CRC-32C (Castagnoli), reflected: what TFRecord guards its parts with.
constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    table[i] = i;
    for (int bit = 0; bit < 8; ++bit) table[i] = (table[i] >> 1) ^ (table[i] & 1 ? 0x82F63B78u : 0u);
  }
  return table;
}();

uint32_t masked_crc(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char c : bytes) crc = kCrcTable[(crc ^ uint8_t(c)) & 0xFF] ^ (crc >> 8);
  crc = ~crc;
  return std::rotr(crc, 15) + 0xA282EAD8u;
}

// Protobuf's wire format: a key (field number, kind of value), then the value.
enum Kind : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_varint(std::string& to, uint64_t value) {
  for (; value >= 0x80; value >>= 7) to += char(value | 0x80);
  to += char(value);
}

void put_key(std::string& to, uint64_t field, Kind kind) { put_varint(to, field << 3 | kind); }

template <class T>
void put_raw(std::string& to, T value) {
  static_assert(std::endian::native == std::endian::little);
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  to.append(bytes, sizeof value);
}

void put_bytes(std::string& to, uint64_t field, std::string_view bytes) {
  put_key(to, field, kBytes), put_varint(to, bytes.size()), to += bytes;
}

// TFRecord: length, its checksum, the data, its checksum.
std::string record_of(const std::string& event) {
  std::string length, record;
  put_raw(length, uint64_t(event.size()));
  record = length;
  put_raw(record, masked_crc(length));
  record += event;
  put_raw(record, masked_crc(event));
  return record;
}

// message Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5;
//                 SessionLog session_log = 7; }
std::string event_of(double wall_time, int64_t step) {
  std::string event;
  put_key(event, 1, kFixed64), put_raw(event, wall_time);
  if (step != 0) put_key(event, 2, kVarint), put_varint(event, uint64_t(step));
  return event;
}

// message Summary { repeated Value value = 1; }  message Value { string tag = 1; float simple_value = 2; }
std::string record_of_line(const Json& line, std::string_view group, std::string_view dropped_prefix) {
  std::string summary;
  for (const auto& [key, value] : line.items()) {
    if (!value.is_number() || key == "step" || key == "wall_time") continue;
    const std::string name = key.starts_with(dropped_prefix) ? key.substr(dropped_prefix.size()) : key;
    std::string scalar;
    put_bytes(scalar, 1, fmt::format("{}/{}", group, name));
    put_key(scalar, 2, kFixed32), put_raw(scalar, value.get<float>());
    put_bytes(summary, 1, scalar);
  }
  std::string event = event_of(line.value("wall_time", 0.0), line.value("step", int64_t{0}));
  put_bytes(event, 5, summary);
  return record_of(event);
}

std::string training_record(const Json& line) { return record_of_line(line, "train", ""); }
std::string evaluation_record(const Json& line) { return record_of_line(line, "eval", "eval_"); }

// A whole file's lines as records. One that cannot be read is no reason to stop a run that only copies it.
template <class Record>
std::string records_of_file(const fs::path& file, const Record& record) {
  std::string records, text;
  if (fs::exists(file)) text = read_text(file);
  std::istringstream lines(text);
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    try {
      records += record(parse_json(line, fmt::format("{}:{}", file.string(), number)));
    } catch (const std::exception& e) {  // also a step that is no number
      spdlog::warn("tensorboard_line_left_out file={} line={} error=\"{}\"", file.string(), number, e.what());
    }
  }
  return records;
}

double seconds_since_epoch() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// TensorBoard knows its files by "tfevents" in the name and reads them in the order of their names.
std::string new_file_name(double now) {
  char host[HOST_NAME_MAX + 1] = "";
  if (gethostname(host, sizeof host - 1) != 0 || !*host) std::strcpy(host, "localhost");
  return fmt::format("events.out.tfevents.{:010}.{}.{}", int64_t(now), host, getpid());
}

}  // namespace

TensorBoardLog::TensorBoardLog(fs::path folder, const fs::path& metrics_file, const fs::path& eval_file) {
  make_directories(folder);
  remove_leftovers(folder);
  std::vector<fs::path> older;
  for (const auto& entry : entries_of(folder))
    if (entry.path().filename().string().find("tfevents") != std::string::npos) older.push_back(entry.path());

  const double now = seconds_since_epoch();
  std::string version = event_of(now, 0), start = event_of(now, 0), status;
  put_bytes(version, 3, "brain.Event:2");
  // SessionLog's START at step 0: a TensorBoard that is watching forgets what it read from the older files.
  put_key(status, 1, kVarint), put_varint(status, 1);
  put_bytes(start, 7, status);
  file_path_ = folder / new_file_name(now);
  atomic_write_file(file_path_, record_of(version) + record_of(start) + records_of_file(metrics_file, training_record) +
                                    records_of_file(eval_file, evaluation_record));
  std::error_code ignored;
  for (const auto& path : older)
    if (path != file_path_) fs::remove(path, ignored);
  file_ = open(file_path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  DSE_CHECK_USER(file_ >= 0, "cannot open {}: {}", file_path_.string(), std::strerror(errno));
}

TensorBoardLog::~TensorBoardLog() {
  if (file_ >= 0) close(file_);
}

void TensorBoardLog::append_training(const Json& line) { append(training_record(line)); }
void TensorBoardLog::append_evaluation(const Json& line) { append(evaluation_record(line)); }

void TensorBoardLog::append(const std::string& record) {
  ssize_t written;
  do written = write(file_, record.data(), record.size());
  while (written < 0 && errno == EINTR);
  DSE_CHECK_USER(written == ssize_t(record.size()), "cannot write to {}: {}", file_path_.string(),
                 std::strerror(written < 0 ? errno : ENOSPC));
}

}  // namespace dsengine
