// What `dsengine eval` prints.
//
//   const Json result = evaluate(engine, options, sampling);
//   std::cout << eval_summary(result, 3);   // "model  models/tiny\n       loss 2.3026 nats a token, …"
//   // then three prompts with the models' answers
#pragma once
#include <cstdint>
#include <string>

#include "base/json.h"

namespace dsengine {

std::string eval_summary(const Json& result, int64_t shown_answers);

}  // namespace dsengine
