/* Preloaded into a command: the Nth call of one kind, on a path below a folder, fails with an error number.

   FAULT_CALL   open, write, fsync, rename, mkdir, unlink or chmod
   FAULT_BELOW  the folder, as an absolute path
   FAULT_NTH    which call fails, counted from 1, and all after it if FAULT_STAYS is set
   FAULT_ERRNO  the error number
   FAULT_MARK   a file that is made when a call has failed

   Read at each call, so that a process that was forked with the library in it may set them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int count;

static int fails(const char *call, const char *path) {
    const char *wanted = getenv("FAULT_CALL"), *below = getenv("FAULT_BELOW"), *nth = getenv("FAULT_NTH");
    char here[PATH_MAX], full[2 * PATH_MAX];
    if (!wanted || !below || !nth || !path || strcmp(call, wanted)) return 0;
    if (path[0] == '/' || !getcwd(here, sizeof here)) snprintf(full, sizeof full, "%s", path);
    else snprintf(full, sizeof full, "%s/%s", here, path);
    if (strncmp(full, below, strlen(below))) return 0;
    int now = __sync_add_and_fetch(&count, 1), first = atoi(nth);
    if (now < first || (now > first && !getenv("FAULT_STAYS"))) return 0;
    const char *mark = getenv("FAULT_MARK"), *number = getenv("FAULT_ERRNO");
    if (mark) syscall(SYS_close, syscall(SYS_openat, AT_FDCWD, mark, O_CREAT | O_WRONLY, 0600));
    errno = number ? atoi(number) : EIO;
    return 1;
}

static int fails_at(const char *call, int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return fails(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        return fails("open", path) ? -1 : REAL(name)(path, flags, mode); \
    }
#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        return fails("open", path) ? -1 : REAL(name)(at, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
FILE *fopen(const char *path, const char *mode) { return fails("open", path) ? NULL : REAL(fopen)(path, mode); }
FILE *fopen64(const char *path, const char *mode) { return fails("open", path) ? NULL : REAL(fopen64)(path, mode); }
ssize_t write(int fd, const void *data, size_t size) { return fails_at("write", fd) ? -1 : REAL(write)(fd, data, size); }
ssize_t writev(int fd, const struct iovec *data, int n) { return fails_at("write", fd) ? -1 : REAL(writev)(fd, data, n); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return fails_at("write", fd) ? -1 : REAL(pwrite64)(fd, data, size, at);
}
int fsync(int fd) { return fails_at("fsync", fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails_at("fsync", fd) ? -1 : REAL(fdatasync)(fd); }
int rename(const char *from, const char *to) { return fails("rename", to) ? -1 : REAL(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) {
    return fails("rename", to) ? -1 : REAL(renameat)(a, from, b, to);
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    return fails("rename", to) ? -1 : REAL(renameat2)(a, from, b, to, flags);
}
int mkdir(const char *path, mode_t mode) { return fails("mkdir", path) ? -1 : REAL(mkdir)(path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return fails("mkdir", path) ? -1 : REAL(mkdirat)(at, path, mode); }
int unlink(const char *path) { return fails("unlink", path) ? -1 : REAL(unlink)(path); }
int rmdir(const char *path) { return fails("unlink", path) ? -1 : REAL(rmdir)(path); }
int chmod(const char *path, mode_t mode) { return fails("chmod", path) ? -1 : REAL(chmod)(path, mode); }
int fchmodat(int at, const char *path, mode_t mode, int flags) {
    return fails("chmod", path) ? -1 : REAL(fchmodat)(at, path, mode, flags);
}
