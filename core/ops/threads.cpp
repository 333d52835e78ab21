#include "ops/threads.h"

#include <ATen/Parallel.h>

#include "plugin/host.h"

namespace dsengine {

void lend_threads_to_plugins() {
  set_parallel_for([](int64_t begin, int64_t end, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
    at::parallel_for(begin, end, grain, [&](int64_t first, int64_t last) { body(context, first, last); });
  });
}

}  // namespace dsengine
