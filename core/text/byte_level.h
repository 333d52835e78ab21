// GPT-2's byte alphabet: each of the 256 bytes has a printable character, so that a vocabulary of byte
// strings can be written as text. A space is "Ġ", a newline "Ċ".
//
//   std::string mapped;
//   append_byte_chars(" cat", mapped);   // "Ġcat"
//   append_bytes("Ġcat", mapped);        // " cat" again
#pragma once
#include <string>
#include <string_view>

namespace dsengine {

void append_byte_chars(std::string_view bytes, std::string& chars);

// A token with a character outside the alphabet (an added token) is appended as it is.
void append_bytes(std::string_view token, std::string& bytes);

}  // namespace dsengine
