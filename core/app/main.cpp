// dsengine: loads the command line (program.cpp), and with it LibTorch, once the environment says what LibTorch's
// OpenMP reads of it while it is loaded.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

namespace {

// How often OpenMP's waiting threads look again before they sleep: some 40 microseconds, about what it costs to wake
// one. Its default, some milliseconds, takes the processor from the threads that it waits for where others compute
// beside them (bench/threads/busy_machine.py).
constexpr const char* kSpins = "2000";

// Loaded for as long as the process lives, and seen by what is loaded later as what a program is linked with: a plugin
// in C may leave out -lm.
void* load_program() {
  const bool ours = !std::getenv("GOMP_SPINCOUNT") && !std::getenv("OMP_WAIT_POLICY");
  if (ours) setenv("GOMP_SPINCOUNT", kSpins, 1);
  void* library = dlopen("libdsengine_program.so", RTLD_LAZY | RTLD_GLOBAL);
  if (ours) unsetenv("GOMP_SPINCOUNT");  // it was read; programs that this one starts wait as they like
  return library;
}

}  // namespace

int main(int argc, char** argv) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    std::fputs("dsengine: error: this build needs a processor with AVX2 and FMA\n", stderr);
    return 1;
  }
#endif
  void* library = load_program();
  void* program = library ? dlsym(library, "dsengine_program") : nullptr;
  if (!program) {
    std::fprintf(stderr, "dsengine: error: %s; install it again\n", dlerror());
    return 1;
  }
  return reinterpret_cast<int (*)(int, char**)>(program)(argc, argv);
}
