// Characters that Hugging Face's Oniguruma knows (Unicode 16) and Debian's PCRE2 10.42 does not (Unicode 14); those
// that Rust's to_lowercase knows (Unicode 17) and utf8proc 2.8 does not (Unicode 15).
//
//   newer_characters("Nd");   // "\x{10D40}-\x{10D49}…": digits, to stand within [ ]
//   newer_characters("L");    // all letters: Lu, Ll, Lt, Lm, Lo
#pragma once
#include <string>
#include <string_view>

namespace dsengine {

// `category`: a general category of Unicode, or its first letter; "" for anything else.
std::string newer_characters(std::string_view category);
// 0 where the character is not one of those.
char32_t newer_lower_case(char32_t code);

}  // namespace dsengine
