// A Perl-compatible pattern over text that may not be UTF-8.
//
//   const Regex answer("answer is (?<word>\\w+)");
//   if (const auto found = answer.find(text)) use(found->group("word"));      // "" where the group took no part
//
// A pattern that runs away does not match.
#pragma once
#include <dsengine/plugin.hpp>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace {

class Regex {
  template <auto free>
  struct Free {
    template <class T>
    void operator()(T* t) const {
      free(t);
    }
  };

 public:
  // What a pattern found. Borrows the text and the pattern.
  class Match {
   public:
    size_t begin() const { return ends()[0]; }
    size_t end() const { return ends()[1]; }
    std::string_view group(uint32_t number) const {
      const auto* at = ends() + 2 * number;
      return at[0] == PCRE2_UNSET ? std::string_view() : text_.substr(at[0], at[1] - at[0]);
    }
    // The first group of that name that took part.
    std::string_view group(const char* name) const {
      PCRE2_SPTR first, last;
      const int size = pcre2_substring_nametable_scan(code_, reinterpret_cast<PCRE2_SPTR>(name), &first, &last);
      if (size < 0) throw dse::Failure("no group '" + std::string(name) + "'");
      for (; first <= last; first += size)
        if (const uint32_t number = uint32_t(first[0]) << 8 | first[1]; ends()[2 * number] != PCRE2_UNSET)
          return group(number);
      return {};
    }

   private:
    friend class Regex;
    const PCRE2_SIZE* ends() const { return pcre2_get_ovector_pointer(data_.get()); }
    std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>> data_;
    const pcre2_code* code_ = nullptr;
    std::string_view text_;
  };

  explicit Regex(const std::string& pattern, uint32_t options = 0) {
    int code = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.c_str()), pattern.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | options, &code, &offset, nullptr));
    if (code_) return;
    unsigned char text[200] = "";
    pcre2_get_error_message(code, text, sizeof text);
    throw dse::Failure(
        "pattern: " + std::string(reinterpret_cast<char*>(text)) + " at character " + std::to_string(offset),
        DSE_BAD_OPTION);
  }

  // The first match at or behind byte `from`.
  std::optional<Match> find(std::string_view text, size_t from = 0) const {
    Match found;
    found.data_.reset(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    found.code_ = code_.get(), found.text_ = text;
    const int count = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from, 0,
                                  found.data_.get(), nullptr);
    if (count < 1) return std::nullopt;
    return found;
  }
  bool has_group() const {
    uint32_t groups = 0;
    pcre2_pattern_info(code_.get(), PCRE2_INFO_CAPTURECOUNT, &groups);
    return groups > 0;
  }

 private:
  std::unique_ptr<pcre2_code, Free<pcre2_code_free>> code_;
};

}  // namespace
