/* Loaded into a program with LD_PRELOAD: notes in order what it does to the files below a directory.

   POWER_LOSS_DIRECTORY is that directory, POWER_LOSS_TRACE the file for the notes, and below
   POWER_LOSS_INODES each file that is created gets a second name, its inode number: so that no number
   is used twice.  The shared memory of SQLite is left out; nobody needs it after a power loss. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define LOCKED(...) \
    do { \
        pthread_mutex_lock(&lock); \
        __VA_ARGS__; \
        pthread_mutex_unlock(&lock); \
    } while (0)

struct note {
    char kind;
    uint64_t inode;
    int64_t offset, mtime_ns;
    uint32_t length;
} __attribute__((packed));

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *directory, *inodes;
static int trace = -1;

__attribute__((constructor)) static void start(void)
{
    directory = getenv("POWER_LOSS_DIRECTORY");
    inodes = getenv("POWER_LOSS_INODES");
    trace = NEXT(open)(getenv("POWER_LOSS_TRACE"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (!directory || !inodes || trace < 0)
        abort();
    unsetenv("LD_PRELOAD"); /* programs that this one starts are let be */
}

static void put(char kind, uint64_t inode, int64_t offset, int64_t mtime_ns, const void *data,
                size_t length)
{
    struct note note = {kind, inode, offset, mtime_ns, length};
    struct iovec parts[] = {{&note, sizeof note}, {(void *)data, length}};
    if (NEXT(writev)(trace, parts, 2) != (ssize_t)(sizeof note + length))
        abort();
}

static void put_change(char kind, int fd, int64_t offset, const void *data, size_t length)
{
    struct stat status;
    if (fstat(fd, &status))
        abort();
    int64_t mtime_ns = status.st_mtim.tv_sec * 1000000000LL + status.st_mtim.tv_nsec;
    put(kind, status.st_ino, offset, mtime_ns, data, length);
}

static void give_second_name(int fd)
{
    char link[64], second_name[4096];
    struct stat status;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (fstat(fd, &status))
        abort();
    snprintf(second_name, sizeof second_name, "%s/%lu", inodes, status.st_ino);
    if (NEXT(linkat)(AT_FDCWD, link, AT_FDCWD, second_name, AT_SYMLINK_FOLLOW))
        abort();
}

static void put_names(char kind, const char *first, const char *second)
{
    char names[8192];
    int length = snprintf(names, sizeof names, "%s%s%s", first, second ? "\n" : "",
                          second ? second : "");
    put(kind, 0, 0, 0, names, length);
}

static int is_below(const char *path)
{
    size_t length = strlen(directory), whole = strlen(path);
    return !strncmp(path, directory, length) && (path[length] == '/' || !path[length]) &&
           (whole < 4 || strcmp(path + whole - 4, "-shm"));
}

static int name_of(int fd, char path[4096])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 4095);
    path[length < 0 ? 0 : length] = 0;
    return is_below(path);
}

static int is_traced(int fd)
{
    char path[4096];
    return name_of(fd, path);
}

static int resolved(int at, const char *path, char whole[8192])
{
    char start[4096] = "";
    if (path[0] != '/') {
        if (at != AT_FDCWD)
            name_of(at, start);
        else if (!getcwd(start, sizeof start))
            abort();
        strcat(start, "/");
    }
    snprintf(whole, 8192, "%s%s", start, path);
    return is_below(whole);
}

/* What a file holds */

ssize_t write(int fd, const void *data, size_t length)
{
    if (!is_traced(fd))
        return NEXT(write)(fd, data, length);
    ssize_t done;
    LOCKED(
        done = NEXT(write)(fd, data, length);
        if (done > 0) put_change('w', fd, lseek(fd, 0, SEEK_CUR) - done, data, done));
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (!is_traced(fd))
        return NEXT(writev)(fd, parts, count);
    return count ? write(fd, parts[0].iov_base, parts[0].iov_len) : 0; /* it may write less */
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    if (!is_traced(fd))
        return NEXT(pwrite64)(fd, data, length, offset);
    ssize_t done;
    LOCKED(
        done = NEXT(pwrite64)(fd, data, length, offset);
        if (done > 0) put_change('w', fd, offset, data, done));
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    return pwrite64(fd, data, length, offset);
}

int ftruncate64(int fd, off64_t length)
{
    if (!is_traced(fd))
        return NEXT(ftruncate64)(fd, length);
    int failed;
    LOCKED(
        failed = NEXT(ftruncate64)(fd, length);
        if (!failed) put_change('t', fd, length, "", 0));
    return failed;
}

int ftruncate(int fd, off_t length)
{
    return ftruncate64(fd, length);
}

int futimens(int fd, const struct timespec times[2])
{
    if (!is_traced(fd))
        return NEXT(futimens)(fd, times);
    int failed;
    LOCKED(
        failed = NEXT(futimens)(fd, times);
        if (!failed) put_change('u', fd, 0, "", 0));
    return failed;
}

int utimensat(int at, const char *path, const struct timespec times[2], int flags)
{
    int no_follow = flags & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0;
    int fd = NEXT(openat)(at, path, O_RDONLY | O_CLOEXEC | no_follow);
    int failed = fd < 0 ? -1 : futimens(fd, times);
    if (fd >= 0)
        close(fd);
    return failed;
}

/* What is on the device */

static int sync_file(int fd, int (*next)(int))
{
    char path[4096];
    struct stat status;
    if (!name_of(fd, path))
        return next(fd);
    int failed;
    LOCKED(
        failed = next(fd);
        if (!failed && !fstat(fd, &status)) {
            if (S_ISDIR(status.st_mode))
                put_names('D', path, 0);
            else
                put('s', status.st_ino, 0, 0, "", 0);
        });
    return failed;
}

int fsync(int fd)
{
    return sync_file(fd, NEXT(fsync));
}

int fdatasync(int fd)
{
    return sync_file(fd, NEXT(fdatasync));
}

/* What a directory holds */

int openat64(int at, const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    int is_nameless = (flags & O_TMPFILE) == O_TMPFILE;
    char whole[8192];
    if (!(is_nameless || flags & (O_CREAT | O_TRUNC)) || !resolved(at, path, whole))
        return NEXT(openat64)(at, path, flags, mode);
    int fd;
    struct stat status;
    LOCKED(
        int is_new = is_nameless || lstat(whole, &status);
        fd = NEXT(openat64)(at, path, flags, mode);
        if (fd >= 0 && is_new) {
            give_second_name(fd);
            put_change('c', fd, 0, whole, is_nameless ? 0 : strlen(whole));
        } else if (fd >= 0 && flags & O_TRUNC)
            put_change('t', fd, 0, "", 0));
    return fd;
}

#define OPEN(name, at, ...) \
    int name(__VA_ARGS__ const char *path, int flags, ...) \
    { \
        va_list arguments; \
        va_start(arguments, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0; \
        va_end(arguments); \
        return openat64(at, path, flags, mode); \
    }

OPEN(open, AT_FDCWD)
OPEN(open64, AT_FDCWD)
#define COMMA ,
OPEN(openat, at, int at COMMA)

int mkdirat(int at, const char *path, mode_t mode)
{
    char whole[8192];
    if (!resolved(at, path, whole))
        return NEXT(mkdirat)(at, path, mode);
    int failed;
    LOCKED(
        failed = NEXT(mkdirat)(at, path, mode);
        if (!failed) put_names('d', whole, 0));
    return failed;
}

int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

int unlinkat(int at, const char *path, int flags)
{
    char whole[8192];
    if (!resolved(at, path, whole))
        return NEXT(unlinkat)(at, path, flags);
    int failed;
    LOCKED(
        failed = NEXT(unlinkat)(at, path, flags);
        if (!failed) put_names('x', whole, 0));
    return failed;
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int renameat(int from, const char *old, int to, const char *new)
{
    char whole[8192], target[8192];
    if (!resolved(from, old, whole) | !resolved(to, new, target))
        return NEXT(renameat)(from, old, to, new);
    int failed;
    LOCKED(
        failed = NEXT(renameat)(from, old, to, new);
        if (!failed) put_names('r', whole, target));
    return failed;
}

int rename(const char *old, const char *new)
{
    return renameat(AT_FDCWD, old, AT_FDCWD, new);
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
    char whole[8192];
    if (!resolved(to, new, whole))
        return NEXT(linkat)(from, old, to, new, flags);
    int failed;
    struct stat status;
    LOCKED(
        failed = NEXT(linkat)(from, old, to, new, flags);
        if (!failed && !stat(whole, &status))
            put('l', status.st_ino, 0, 0, whole, strlen(whole)));
    return failed;
}

int link(const char *old, const char *new)
{
    return linkat(AT_FDCWD, old, AT_FDCWD, new, 0);
}

/* What the program itself says: called through ctypes. */
void power_loss_mark(const char *text)
{
    LOCKED(put_names('m', text, 0));
}
