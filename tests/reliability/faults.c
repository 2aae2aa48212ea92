/* Preloaded under Python: lets the k-th call of one kind on files of one folder fail with a given errno, once. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE, FSYNC, RENAME, READ, OPEN };
static int kind = -1, countdown, fault, fired;
static char folder[PATH_MAX];

void faults_arm(int k, int after, int number, const char *path) {
    kind = k, countdown = after, fault = number, fired = 0;
    strncpy(folder, path, sizeof folder - 1);
}
int faults_disarm(void) { kind = -1; return fired; }

static int named(int k, const char *path) {
    if (k != kind || fired || !path || strncmp(path, folder, strlen(folder)) || countdown-- > 0) return 0;
    fired = 1, errno = fault;
    return 1;
}
static int open_file(int k, int fd) {
    char link[64], path[PATH_MAX];
    if (k != kind || fired) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return named(k, path);
}
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *b, size_t n) { return open_file(WRITE, fd) ? -1 : NEXT(write)(fd, b, n); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { return open_file(WRITE, fd) ? -1 : NEXT(pwrite64)(fd, b, n, o); }
ssize_t writev(int fd, const struct iovec *v, int n) { return open_file(WRITE, fd) ? -1 : NEXT(writev)(fd, v, n); }
size_t fwrite(const void *b, size_t s, size_t n, FILE *f) { return open_file(WRITE, fileno(f)) ? 0 : NEXT(fwrite)(b, s, n, f); }
int fsync(int fd) { return open_file(FSYNC, fd) ? -1 : NEXT(fsync)(fd); }
int fdatasync(int fd) { return open_file(FSYNC, fd) ? -1 : NEXT(fdatasync)(fd); }
int rename(const char *a, const char *b) { return named(RENAME, b) ? -1 : NEXT(rename)(a, b); }
ssize_t read(int fd, void *b, size_t n) { return open_file(READ, fd) ? -1 : NEXT(read)(fd, b, n); }
ssize_t pread64(int fd, void *b, size_t n, off64_t o) { return open_file(READ, fd) ? -1 : NEXT(pread64)(fd, b, n, o); }
size_t fread(void *b, size_t s, size_t n, FILE *f) { return open_file(READ, fileno(f)) ? 0 : NEXT(fread)(b, s, n, f); }

#define OPENER(name)                                                     \
    int name(const char *path, int flags, ...) {                         \
        va_list more;                                                    \
        va_start(more, flags);                                           \
        int mode = va_arg(more, int);                                    \
        va_end(more);                                                    \
        return named(OPEN, path) ? -1 : NEXT(name)(path, flags, mode);   \
    }
OPENER(open)
OPENER(open64)
