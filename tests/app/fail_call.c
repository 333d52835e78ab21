/* Preloaded: of the calls to the file system that name something in the folder DSE_FAULT_ROOT, the one numbered
 * DSE_FAULT_CALL fails: with EIO what reads, closes or removes, with the errno DSE_FAULT_ERRNO what writes. With
 * DSE_FAULT_LASTING every later call that writes fails too, as on a disk that is full. DSE_FAULT_LOG is given a line
 * "operation path" for each call that failed or, where no number is given, for each call. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum kind { reads, writes, removes };

static atomic_long calls;
static char* paths[65536]; /* of the open descriptors that count; never freed */

static int counts(const char* path) {
  const char* root = getenv("DSE_FAULT_ROOT");
  const size_t length = root ? strlen(root) : 0;
  return length > 0 && path && strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static const char* path_of(int fd) { return fd >= 0 && fd < 65536 ? paths[fd] : NULL; }

static void keep(int fd, const char* path) {
  if (fd >= 0 && fd < 65536) paths[fd] = counts(path) ? strdup(path) : NULL;
}

static void tell(const char* operation, const char* path) {
  const char* log = getenv("DSE_FAULT_LOG");
  if (!log) return;
  char line[PATH_MAX + 32];
  const int length = snprintf(line, sizeof line, "%s %s\n", operation, path);
  const int fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0644);
  syscall(SYS_write, fd, line, (size_t)length);
  syscall(SYS_close, fd);
}

/* Whether this call is to fail; errno is then set. */
static int fails(const char* operation, const char* path, enum kind kind) {
  if (!counts(path)) return 0;
  const char *number = getenv("DSE_FAULT_CALL"), *error = getenv("DSE_FAULT_ERRNO");
  const long call = atomic_fetch_add(&calls, 1) + 1, chosen = number ? atol(number) : 0;
  if (!number) tell(operation, path);
  if (call != chosen && !(chosen > 0 && call > chosen && kind == writes && getenv("DSE_FAULT_LASTING"))) return 0;
  tell(operation, path);
  errno = kind == writes && error ? atoi(error) : EIO;
  return 1;
}

/* The path that a call with a folder's descriptor means. */
static const char* joined(int folder, const char* path, char* buffer) {
  if (path[0] == '/') return path;
  if (folder == AT_FDCWD) return snprintf(buffer, PATH_MAX, "%s", path), buffer;
  char link[64], start[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
  const ssize_t size = readlink(link, start, sizeof start - 1);
  if (size < 0) return path;
  start[size] = 0;
  if ((size_t)snprintf(buffer, PATH_MAX, "%s/%s", start, path) >= PATH_MAX) return path;
  return buffer;
}

static const char* name_of_open(int flags) { return flags & O_DIRECTORY ? "list" : "open"; }
static enum kind kind_of_flags(int flags) { return flags & (O_CREAT | O_TRUNC) ? writes : reads; }

#define OPEN(name)                                                         \
  int name(const char* path, int flags, ...) {                             \
    va_list more;                                                          \
    va_start(more, flags);                                                 \
    const mode_t mode = va_arg(more, mode_t);                              \
    va_end(more);                                                          \
    if (fails(name_of_open(flags), path, kind_of_flags(flags))) return -1; \
    const int fd = REAL(name)(path, flags, mode);                          \
    return keep(fd, path), fd;                                             \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                        \
  int name(int folder, const char* path, int flags, ...) {                  \
    char buffer[PATH_MAX];                                                  \
    va_list more;                                                           \
    va_start(more, flags);                                                  \
    const mode_t mode = va_arg(more, mode_t);                               \
    va_end(more);                                                           \
    const char* whole = joined(folder, path, buffer);                       \
    if (fails(name_of_open(flags), whole, kind_of_flags(flags))) return -1; \
    const int fd = REAL(name)(folder, path, flags, mode);                   \
    return keep(fd, whole), fd;                                             \
  }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                        \
  FILE* name(const char* path, const char* mode) {                         \
    if (fails("open", path, mode[0] == 'r' ? reads : writes)) return NULL; \
    FILE* file = REAL(name)(path, mode);                                   \
    if (file) keep(fileno(file), path);                                    \
    return file;                                                           \
  }
FOPEN(fopen)
FOPEN(fopen64)

/* RESULT name(PARAMETERS): fails with FAILURE where the call on PATH is to fail, else goes on with ARGUMENTS. */
#define CALL(RESULT, name, PARAMETERS, ARGUMENTS, operation, PATH, kind, FAILURE) \
  RESULT name PARAMETERS {                                                        \
    if (fails(operation, PATH, kind)) return FAILURE;                             \
    return REAL(name) ARGUMENTS;                                                  \
  }
CALL(ssize_t, read, (int fd, void* to, size_t size), (fd, to, size), "read", path_of(fd), reads, -1)
CALL(ssize_t, pread, (int fd, void* to, size_t size, off_t at), (fd, to, size, at), "read", path_of(fd), reads, -1)
CALL(ssize_t, pread64, (int fd, void* to, size_t size, off64_t at), (fd, to, size, at), "read", path_of(fd), reads, -1)
CALL(void*, mmap, (void* at, size_t size, int use, int flags, int fd, off_t from), (at, size, use, flags, fd, from),
     "map", path_of(fd), reads, MAP_FAILED)
CALL(void*, mmap64, (void* at, size_t size, int use, int flags, int fd, off64_t from), (at, size, use, flags, fd, from),
     "map", path_of(fd), reads, MAP_FAILED)
/* Of a list of names its first counts. */
CALL(struct dirent*, readdir, (DIR * folder), (folder), "list", telldir(folder) ? NULL : path_of(dirfd(folder)), reads,
     NULL)
CALL(struct dirent64*, readdir64, (DIR * folder), (folder), "list", telldir(folder) ? NULL : path_of(dirfd(folder)),
     reads, NULL)
CALL(int, stat, (const char* path, struct stat* to), (path, to), "stat", path, reads, -1)
CALL(int, stat64, (const char* path, struct stat64* to), (path, to), "stat", path, reads, -1)
CALL(int, lstat, (const char* path, struct stat* to), (path, to), "stat", path, reads, -1)
CALL(int, lstat64, (const char* path, struct stat64* to), (path, to), "stat", path, reads, -1)
CALL(int, fstat, (int fd, struct stat* to), (fd, to), "stat", path_of(fd), reads, -1)
CALL(int, fstat64, (int fd, struct stat64* to), (fd, to), "stat", path_of(fd), reads, -1)
/* What older programs call by the functions above. */
int __xstat(int version, const char* path, struct stat* to);
int __xstat64(int version, const char* path, struct stat64* to);
int __lxstat(int version, const char* path, struct stat* to);
int __lxstat64(int version, const char* path, struct stat64* to);
CALL(int, __xstat, (int version, const char* path, struct stat* to), (version, path, to), "stat", path, reads, -1)
CALL(int, __xstat64, (int version, const char* path, struct stat64* to), (version, path, to), "stat", path, reads, -1)
CALL(int, __lxstat, (int version, const char* path, struct stat* to), (version, path, to), "stat", path, reads, -1)
CALL(int, __lxstat64, (int version, const char* path, struct stat64* to), (version, path, to), "stat", path, reads, -1)
CALL(ssize_t, write, (int fd, const void* from, size_t size), (fd, from, size), "write", path_of(fd), writes, -1)
CALL(ssize_t, writev, (int fd, const struct iovec* parts, int count), (fd, parts, count), "write", path_of(fd), writes,
     -1)
CALL(ssize_t, pwrite, (int fd, const void* from, size_t size, off_t at), (fd, from, size, at), "write", path_of(fd),
     writes, -1)
CALL(ssize_t, pwrite64, (int fd, const void* from, size_t size, off64_t at), (fd, from, size, at), "write", path_of(fd),
     writes, -1)
CALL(size_t, fwrite, (const void* from, size_t size, size_t count, FILE* file), (from, size, count, file), "write",
     path_of(fileno(file)), writes, 0)
CALL(int, fflush, (FILE * file), (file), "write", file ? path_of(fileno(file)) : NULL, writes, EOF)
CALL(int, fsync, (int fd), (fd), "sync", path_of(fd), writes, -1)
CALL(int, fdatasync, (int fd), (fd), "sync", path_of(fd), writes, -1)
CALL(int, ftruncate, (int fd, off_t size), (fd, size), "cut", path_of(fd), writes, -1)
CALL(int, ftruncate64, (int fd, off64_t size), (fd, size), "cut", path_of(fd), writes, -1)
CALL(int, mkdir, (const char* path, mode_t mode), (path, mode), "mkdir", path, writes, -1)
CALL(int, rename, (const char* from, const char* to), (from, to), "rename", to, writes, -1)
CALL(int, unlink, (const char* path), (path), "remove", path, removes, -1)
CALL(int, rmdir, (const char* path), (path), "remove", path, removes, -1)
CALL(int, remove, (const char* path), (path), "remove", path, removes, -1)

int unlinkat(int folder, const char* path, int flags) {
  char buffer[PATH_MAX];
  if (fails("remove", joined(folder, path, buffer), removes)) return -1;
  return REAL(unlinkat)(folder, path, flags);
}

DIR* opendir(const char* path) {
  if (fails("list", path, reads)) return NULL;
  DIR* folder = REAL(opendir)(path);
  if (folder) keep(dirfd(folder), path);
  return folder;
}

/* What is closed is closed, also where that fails: the kernel's rule. */
int close(int fd) {
  const int failed = path_of(fd) && fails("close", path_of(fd), removes), error = errno;
  keep(fd, NULL);
  const int result = REAL(close)(fd);
  if (failed) errno = error;
  return failed ? -1 : result;
}

int fclose(FILE* file) {
  const int fd = fileno(file);
  const int failed = path_of(fd) && fails("close", path_of(fd), removes), error = errno;
  keep(fd, NULL);
  const int result = REAL(fclose)(file);
  if (failed) errno = error;
  return failed ? EOF : result;
}
