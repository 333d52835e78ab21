// Characters that utf8proc 2.8 (Unicode 15) knows, and the tables of Hugging Face's normalizers (Unicode 10) do not.
//
//   is_newer_than_forms(0x1DFA);   // true: a mark that Hugging Face's NFC does not reorder
#pragma once

namespace dsengine {

// Left as they are by NFC, NFD, NFKC and NFKD: not decomposed, composed or reordered.
bool is_newer_than_forms(char32_t code);
// Not a mark that StripAccents takes away.
bool is_newer_mark(char32_t code);

}  // namespace dsengine
