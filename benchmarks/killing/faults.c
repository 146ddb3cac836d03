/* Faults of a disk, for LD_PRELOAD: the operations that change files below one folder fail, stop short, wait, or end in
   SIGKILL, from the operation of a given number on. The operations are counted over all processes that share the
   counters. hilum_fault(NULL) switches all off.

   HILUM_FAULT, or the argument of hilum_fault: KIND NUMBER ONCE COUNTERS FOLDER, separated by blanks:
   count | enospc | eio | erofs | short | slow | kill-before | kill-within | kill-after.
   COUNTERS is a file of two unsigned 64-bit numbers: operations so far, and those that were disturbed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { COUNT, ENOSPC_, EIO_, EROFS_, SHORT, SLOW, KILL_BEFORE, KILL_WITHIN, KILL_AFTER, KINDS };
static const char *const names[KINDS] = {
    "count", "enospc", "eio", "erofs", "short", "slow", "kill-before", "kill-within", "kill-after"};
enum { CREATES = 1, WRITES = 2, REMOVES = 4, SYNCS = 8 };

static int active, once;
static enum kind kind;
static unsigned long number;
static char folder[PATH_MAX];
static size_t length;
static _Atomic unsigned long *counters;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

void hilum_fault(const char *text) {
    char what[32], file[PATH_MAX], resolved[PATH_MAX];
    active = 0;
    if (!text || sscanf(text, "%31s %lu %d %4095s %4095[^\n]", what, &number, &once, file, resolved) != 5) return;
    for (kind = COUNT; kind < KINDS && strcmp(names[kind], what); kind++) {}
    int descriptor = REAL(open)(file, O_RDWR | O_CLOEXEC);
    if (kind == KINDS || descriptor < 0 || !realpath(resolved, folder)) abort();
    counters = mmap(NULL, 2 * sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (counters == MAP_FAILED) abort();
    length = strlen(folder);
    active = 1;
}

__attribute__((constructor)) static void start(void) { hilum_fault(getenv("HILUM_FAULT")); }

static int inside(const char *path) {
    return !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

/* Whether a path, which may be relative to a descriptor and need not exist, is in the folder. */
static int named(int at, const char *path) {
    char base[PATH_MAX], link[64];
    if (!active || !path) return 0;
    if (path[0] == '/') return inside(path);
    snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
    ssize_t size = readlink(link, base, sizeof base - 1);
    return size > 0 && (base[size] = 0, inside(base));
}

static int opened(int descriptor) { return active && named(descriptor, "."); }

static void end(void) { kill(0, SIGKILL), pause(); }

/* Count an operation; 0 to let it pass, 1 to act on it as `kind` says, -1 with errno to let it fail. */
static int disturbed(int what) {
    static const int failing[KINDS] = {[ENOSPC_] = CREATES | WRITES, [EIO_] = 15, [EROFS_] = 15, [SHORT] = WRITES,
        [SLOW] = 15, [KILL_BEFORE] = 15, [KILL_WITHIN] = 15, [KILL_AFTER] = 15};
    unsigned long mine = atomic_fetch_add(counters, 1);
    if (mine < number || !(failing[kind] & what)) return 0;
    if (atomic_fetch_add(counters + 1, 1) && once) return 0;
    if (kind == SLOW) nanosleep(&(struct timespec){0, 4000000 + 1000000 * (long)(mine % 7)}, NULL);
    if (kind == KILL_BEFORE || (kind == KILL_WITHIN && !(what & WRITES))) end();
    if (kind >= SHORT) return kind != SLOW;
    errno = kind == ENOSPC_ ? ENOSPC : kind == EIO_ ? EIO : EROFS;
    return -1;
}

static void after(int state) { if (state == 1 && kind == KILL_AFTER) end(); }

#define GUARDED(concerns, what, call)                                  \
    if (!active || !(concerns)) return call;                           \
    int state = disturbed(what);                                       \
    if (state < 0) return -1;                                          \
    __typeof__(call) result = call;                                    \
    int error = errno;                                                 \
    after(state);                                                      \
    errno = error;                                                     \
    return result;

/* Of a write of several bytes, the part that is written. */
static size_t part(int state, size_t size) {
    return state == 1 && (kind == SHORT || kind == KILL_WITHIN) && size > 1 ? 1 + (size - 1) / 2 : size;
}

#define WRITE(descriptor, size, call, partial)                         \
    if (!opened(descriptor)) return call;                              \
    int state = disturbed(WRITES);                                     \
    if (state < 0) return -1;                                          \
    ssize_t result = part(state, size) < (size) ? partial : call;      \
    int error = errno;                                                 \
    if (state == 1 && kind != SHORT) end();                            \
    errno = error;                                                     \
    return result;

ssize_t write(int f, const void *b, size_t n) {
    WRITE(f, n, REAL(write)(f, b, n), REAL(write)(f, b, part(state, n)))
}
ssize_t pwrite(int f, const void *b, size_t n, off_t o) {
    WRITE(f, n, REAL(pwrite)(f, b, n, o), REAL(pwrite)(f, b, part(state, n), o))
}
ssize_t pwrite64(int f, const void *b, size_t n, off64_t o) {
    WRITE(f, n, REAL(pwrite64)(f, b, n, o), REAL(pwrite64)(f, b, part(state, n), o))
}
ssize_t writev(int f, const struct iovec *v, int n) {
    WRITE(f, n ? v[0].iov_len : 0, REAL(writev)(f, v, n), REAL(write)(f, v[0].iov_base, part(state, v[0].iov_len)))
}
ssize_t sendfile(int out, int in, off_t *o, size_t n) {
    WRITE(out, n, REAL(sendfile)(out, in, o, n), REAL(sendfile)(out, in, o, part(state, n)))
}
ssize_t sendfile64(int out, int in, off64_t *o, size_t n) {
    WRITE(out, n, REAL(sendfile64)(out, in, o, n), REAL(sendfile64)(out, in, o, part(state, n)))
}
ssize_t copy_file_range(int in, off64_t *i, int out, off64_t *o, size_t n, unsigned int flags) {
    WRITE(out, n, REAL(copy_file_range)(in, i, out, o, n, flags),
          REAL(copy_file_range)(in, i, out, o, part(state, n), flags))
}

#define CHANGING(flags) (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & (O_CREAT | O_TRUNC)))
#define MODE(flags)                                                    \
    mode_t mode = 0;                                                   \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *p, int flags, ...) {
    MODE(flags) GUARDED(CHANGING(flags) && named(AT_FDCWD, p), CREATES, REAL(open)(p, flags, mode))
}
int open64(const char *p, int flags, ...) {
    MODE(flags) GUARDED(CHANGING(flags) && named(AT_FDCWD, p), CREATES, REAL(open64)(p, flags, mode))
}
int openat(int d, const char *p, int flags, ...) {
    MODE(flags) GUARDED(CHANGING(flags) && named(d, p), CREATES, REAL(openat)(d, p, flags, mode))
}
int openat64(int d, const char *p, int flags, ...) {
    MODE(flags) GUARDED(CHANGING(flags) && named(d, p), CREATES, REAL(openat64)(d, p, flags, mode))
}
int creat(const char *p, mode_t mode) { GUARDED(named(AT_FDCWD, p), CREATES, REAL(creat)(p, mode)) }

#define FOPEN(name)                                                    \
    FILE *name(const char *p, const char *m) {                         \
        if (!strpbrk(m, "wa+") || !named(AT_FDCWD, p)) return REAL(name)(p, m); \
        int state = disturbed(CREATES);                                \
        if (state < 0) return NULL;                                    \
        FILE *result = REAL(name)(p, m);                               \
        after(state);                                                  \
        return result;                                                 \
    }
FOPEN(fopen)
FOPEN(fopen64)

int mkdir(const char *p, mode_t m) { GUARDED(named(AT_FDCWD, p), CREATES, REAL(mkdir)(p, m)) }
int mkdirat(int d, const char *p, mode_t m) { GUARDED(named(d, p), CREATES, REAL(mkdirat)(d, p, m)) }
int link(const char *a, const char *b) { GUARDED(named(AT_FDCWD, b), CREATES, REAL(link)(a, b)) }
int symlink(const char *a, const char *b) { GUARDED(named(AT_FDCWD, b), CREATES, REAL(symlink)(a, b)) }
int rename(const char *a, const char *b) { GUARDED(named(AT_FDCWD, b), CREATES, REAL(rename)(a, b)) }
int renameat(int d, const char *a, int e, const char *b) { GUARDED(named(e, b), CREATES, REAL(renameat)(d, a, e, b)) }
int renameat2(int d, const char *a, int e, const char *b, unsigned int f) {
    GUARDED(named(e, b), CREATES, REAL(renameat2)(d, a, e, b, f))
}
int unlink(const char *p) { GUARDED(named(AT_FDCWD, p), REMOVES, REAL(unlink)(p)) }
int unlinkat(int d, const char *p, int f) { GUARDED(named(d, p), REMOVES, REAL(unlinkat)(d, p, f)) }
int rmdir(const char *p) { GUARDED(named(AT_FDCWD, p), REMOVES, REAL(rmdir)(p)) }
int truncate(const char *p, off_t n) { GUARDED(named(AT_FDCWD, p), REMOVES, REAL(truncate)(p, n)) }
int ftruncate(int f, off_t n) { GUARDED(opened(f), REMOVES, REAL(ftruncate)(f, n)) }
int ftruncate64(int f, off64_t n) { GUARDED(opened(f), REMOVES, REAL(ftruncate64)(f, n)) }
int fsync(int f) { GUARDED(opened(f), SYNCS, REAL(fsync)(f)) }
int fdatasync(int f) { GUARDED(opened(f), SYNCS, REAL(fdatasync)(f)) }
