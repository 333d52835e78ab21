// core/base's and core/files' JSON: what is read is written and read again to the same.
#include "base/json.h"

#include "files/unique_json.h"
#include "fuzz.h"

using namespace dsengine;

FUZZ(text) {
  const Json json = parse_json(text, "input");
  if (parse_json(json.dump(), "its copy") != json) std::abort();
  const UniqueJson unique = parse_unique_json(text, "input");
  if (unique != UniqueJson(json)) std::abort();
}
