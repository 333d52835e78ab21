/* Preloaded: kills the process, as by kill -9, before its DSE_KILL_SYNC-th fsync or rename, so that a run stops in
 * the middle of a save. At a normal end the number of such calls goes to the file DSE_SYNC_COUNT_FILE. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static long calls;

static void count(void) {
  const char* number = getenv("DSE_KILL_SYNC");
  if (++calls == (number ? atol(number) : -1)) raise(SIGKILL);
}

int fsync(int fd) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  count();
  return real(fd);
}

int rename(const char* from, const char* to) {
  int (*real)(const char*, const char*) = (int (*)(const char*, const char*))dlsym(RTLD_NEXT, "rename");
  count();
  return real(from, to);
}

__attribute__((destructor)) static void tell(void) {
  const char* path = getenv("DSE_SYNC_COUNT_FILE");
  FILE* file = path ? fopen(path, "w") : NULL;
  if (!file) return;
  fprintf(file, "%ld\n", calls);
  fclose(file);
}
