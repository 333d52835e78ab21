// How an answer ended, with the numbers that plugins see and the words that JSON has.
//
//   reply.finish = name_of(Finish::stop);    // "stop"
//   row.finish == int32_t(Finish::record);   // DSE_FINISH_RECORD
#pragma once
#include "base/choice.h"
#include "dsengine/abi.h"

namespace dsengine {

enum class Finish : int32_t {
  eos = DSE_FINISH_EOS,        // one of the model's end tokens
  length = DSE_FINISH_LENGTH,  // as many tokens as it might have
  stop = DSE_FINISH_STOP,      // a stop string or token of the request
  record = DSE_FINISH_RECORD   // it was not generated: a record has it
};
template <>
inline constexpr auto kChoices<Finish> = std::to_array<const char*>({"eos", "length", "stop", "record"});

}  // namespace dsengine
