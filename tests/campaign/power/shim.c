/* Writes down everything that a process does to the files below one directory, so that a power cut can be played afterwards.
 *
 * Preloaded. In: the calls of the C library that change files (open, write, truncate, allocate, sync, rename, unlink, mkdir). Out: the
 * same calls, made, and a record of each in the log that CUT_LOG names; CUT_ROOT is the directory. A record stands in the log before its
 * caller goes on, so that the log of a killed process says all that the process could rely on. CUT_AT ends the process with SIGKILL
 * after so many records. CUT_LIE=files or CUT_LIE=directories makes syncs below CUT_LIE_ROOT leave no trace, as if they were not there.
 *
 * Not written down: writes through mmap. SQLite does them to its -shm files only, which need not survive.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, TRUNCATE, ALLOCATE, SYNC_BEGIN, SYNC_END, UNLINK, RENAME, LINK, MKDIR, RMDIR, KNOWN };

struct record {
    uint32_t kind, flags;
    uint64_t inode, a, b;
    uint32_t first, second; /* bytes that follow: two texts, or the data */
};

static char root[PATH_MAX], lie_root[PATH_MAX];
static size_t root_length;
static int log_fd = -1, lie_files, lie_directories;
static int64_t cut_at = -1;
static uint64_t records, tokens;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* Inodes below the root, open addressing; never removed, since a number that comes again is created again. */
#define INODES 65536
static uint64_t inodes[INODES];

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fallocate)(int, int, off_t, off_t);
static int (*real_posix_fallocate)(int, off_t, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_unlink)(const char *);
static int (*real_unlinkat)(int, const char *, int);
static int (*real_rename)(const char *, const char *);
static int (*real_renameat2)(int, const char *, int, const char *, unsigned);
static int (*real_link)(const char *, const char *);
static int (*real_mkdir)(const char *, mode_t);
static int (*real_rmdir)(const char *);

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

__attribute__((constructor)) static void start(void) {
    real_open = dlsym(RTLD_NEXT, "open");
    real_openat = dlsym(RTLD_NEXT, "openat");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_pwritev = dlsym(RTLD_NEXT, "pwritev");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
    real_fallocate = dlsym(RTLD_NEXT, "fallocate");
    real_posix_fallocate = dlsym(RTLD_NEXT, "posix_fallocate");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_unlinkat = dlsym(RTLD_NEXT, "unlinkat");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_renameat2 = dlsym(RTLD_NEXT, "renameat2");
    real_link = dlsym(RTLD_NEXT, "link");
    real_mkdir = dlsym(RTLD_NEXT, "mkdir");
    real_rmdir = dlsym(RTLD_NEXT, "rmdir");
    if (!*setting("CUT_LOG") || !realpath(setting("CUT_ROOT"), root)) return;
    root_length = strlen(root);
    snprintf(lie_root, sizeof lie_root, "%s", setting("CUT_LIE_ROOT"));
    lie_files = !strcmp(setting("CUT_LIE"), "files");
    lie_directories = !strcmp(setting("CUT_LIE"), "directories");
    if (*setting("CUT_AT")) cut_at = strtoll(setting("CUT_AT"), NULL, 10);
    log_fd = real_open(setting("CUT_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int below(const char *path, const char *place) {
    size_t length = strlen(place);
    return length && !strncmp(path, place, length) && (path[length] == '/' || !path[length]);
}

/* The absolute path, with the links of its folder resolved; the last part need not exist. */
static int resolve(const char *path, char *out) {
    char folder[PATH_MAX], real[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    const char *name = path;
    if (slash) {
        name = path + (slash - folder) + 1;
        *slash = 0;
    }
    if (!realpath(slash ? (*folder ? folder : "/") : ".", real)) return 0;
    int length = snprintf(out, PATH_MAX, "%s/%s", real, name);
    return length < PATH_MAX && below(out, root);
}

static int path_of(int fd, char *out) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, out, PATH_MAX - 1);
    if (length < 0) return 0;
    out[length] = 0;
    return below(out, root);
}

static uint64_t *slot(uint64_t inode) {
    for (uint64_t at = inode * 0x9E3779B97F4A7C15u >> 48;; at = (at + 1) % INODES)
        if (!inodes[at] || inodes[at] == inode) return &inodes[at];
}

/* The inode of a file below the root; 0 for all others. */
static uint64_t tracked(int fd, int *directory) {
    struct stat stat;
    if (log_fd < 0 || fd == log_fd || fstat(fd, &stat)) return 0;
    if (!S_ISREG(stat.st_mode) && !S_ISDIR(stat.st_mode)) return 0;
    if (directory) *directory = S_ISDIR(stat.st_mode);
    return *slot(stat.st_ino) ? stat.st_ino : 0;
}

static void put(uint32_t kind, uint32_t flags, uint64_t inode, uint64_t a, uint64_t b, const struct iovec *parts, int count) {
    struct record record = {kind, flags, inode, a, b, 0, 0};
    struct iovec all[18];
    if (count > 17) abort();
    all[0] = (struct iovec){&record, sizeof record};
    ssize_t total = sizeof record;
    for (int n = 0; n < count; n++) {
        all[n + 1] = parts[n];
        total += parts[n].iov_len;
        if (kind != WRITE && n == 1) record.second = parts[n].iov_len;
        else record.first += parts[n].iov_len;
    }
    int saved = errno;
    if (real_writev(log_fd, all, count + 1) != total) abort(); /* without the log nothing can be played */
    errno = saved;
    if (cut_at >= 0 && (int64_t)++records >= cut_at) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
}

static void text(uint32_t kind, uint32_t flags, uint64_t inode, const char *first, const char *second) {
    struct iovec parts[2] = {{(void *)first, strlen(first)}, {(void *)second, second ? strlen(second) : 0}};
    put(kind, flags, inode, 0, 0, parts, second ? 2 : 1);
}

static void lock(void) { pthread_mutex_lock(&mutex); }
static void unlock(void) { pthread_mutex_unlock(&mutex); }

static int opened(int folder, const char *path, int flags, mode_t mode) {
    if (log_fd < 0) return real_openat(folder, path, flags, mode);
    int changes = flags & (O_CREAT | O_TRUNC);
    if (changes) lock();
    int was = faccessat(folder, path, F_OK, 0) == 0;
    int fd = real_openat(folder, path, flags, mode);
    char full[PATH_MAX];
    struct stat stat;
    if (fd >= 0 && path_of(fd, full) && !fstat(fd, &stat) && (S_ISREG(stat.st_mode) || S_ISDIR(stat.st_mode))) {
        if (!changes) lock();
        int known = *slot(stat.st_ino) != 0;
        *slot(stat.st_ino) = stat.st_ino;
        if ((flags & O_CREAT) && !was) text(CREATE, 0, stat.st_ino, full, NULL);
        else if (!known || S_ISDIR(stat.st_mode)) text(KNOWN, S_ISDIR(stat.st_mode), stat.st_ino, full, NULL);
        if ((flags & O_TRUNC) && was) put(TRUNCATE, 0, stat.st_ino, 0, 0, NULL, 0);
        if (!changes) unlock();
    }
    if (changes) unlock();
    return fd;
}

#define OPEN(name)                                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                                       \
        va_list list;                                                                                                                  \
        va_start(list, flags);                                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;                                                        \
        va_end(list);                                                                                                                  \
        return opened(AT_FDCWD, path, flags, mode);                                                                                    \
    }
#define OPENAT(name)                                                                                                                   \
    int name(int folder, const char *path, int flags, ...) {                                                                           \
        va_list list;                                                                                                                  \
        va_start(list, flags);                                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;                                                        \
        va_end(list);                                                                                                                  \
        return opened(folder, path, flags, mode);                                                                                      \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* A write that has happened, at `at`, or at the end of what was there where `at` is negative. */
static void written(uint64_t inode, int fd, const struct iovec *parts, int count, off_t at, ssize_t done) {
    if (done <= 0) return;
    struct iovec some[17];
    int used = 0;
    ssize_t left = done;
    for (int n = 0; n < count && left > 0; n++) {
        if (used == 17) abort();
        some[used] = parts[n];
        if ((ssize_t)some[used].iov_len > left) some[used].iov_len = left;
        left -= some[used++].iov_len;
    }
    int flags = fcntl(fd, F_GETFL);
    put(WRITE, (flags & (O_SYNC | O_DSYNC)) != 0, inode, at, done, some, used);
}

static ssize_t vector(int fd, const struct iovec *parts, int count, off_t at) {
    int directory = 0;
    uint64_t inode = tracked(fd, &directory);
    if (!inode) return at < 0 ? real_writev(fd, parts, count) : real_pwritev(fd, parts, count, at);
    lock();
    ssize_t done = at < 0 ? real_writev(fd, parts, count) : real_pwritev(fd, parts, count, at);
    off_t place = at >= 0 ? at : lseek(fd, 0, SEEK_CUR) - done;
    written(inode, fd, parts, count, place, done);
    unlock();
    return done;
}

ssize_t write(int fd, const void *data, size_t size) {
    if (log_fd < 0 || !tracked(fd, NULL)) return real_write(fd, data, size);
    return vector(fd, &(struct iovec){(void *)data, size}, 1, -1);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    if (log_fd < 0 || !tracked(fd, NULL)) return real_pwrite(fd, data, size, at);
    return vector(fd, &(struct iovec){(void *)data, size}, 1, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return pwrite(fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return vector(fd, parts, count, -1); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return vector(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) { return vector(fd, parts, count, at); }

int ftruncate(int fd, off_t length) {
    uint64_t inode = tracked(fd, NULL);
    if (!inode) return real_ftruncate(fd, length);
    lock();
    int result = real_ftruncate(fd, length);
    if (!result) put(TRUNCATE, 0, inode, length, 0, NULL, 0);
    unlock();
    return result;
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

static int allocated(int fd, int mode, off_t at, off_t length, int posix) {
    uint64_t inode = tracked(fd, NULL);
    if (inode) lock();
    int result = posix ? real_posix_fallocate(fd, at, length) : real_fallocate(fd, mode, at, length);
    if (inode && !result) put(ALLOCATE, mode, inode, at, length, NULL, 0);
    if (inode) unlock();
    return result;
}
int fallocate(int fd, int mode, off_t at, off_t length) { return allocated(fd, mode, at, length, 0); }
int fallocate64(int fd, int mode, off_t at, off_t length) { return allocated(fd, mode, at, length, 0); }
int posix_fallocate(int fd, off_t at, off_t length) { return allocated(fd, 0, at, length, 1); }
int posix_fallocate64(int fd, off_t at, off_t length) { return allocated(fd, 0, at, length, 1); }

static int synced(int fd, int (*real)(int)) {
    int directory = 0;
    uint64_t inode = tracked(fd, &directory);
    if (!inode) return real(fd);
    char path[PATH_MAX];
    if ((directory ? lie_directories : lie_files) && path_of(fd, path) && below(path, lie_root)) return 0;
    lock();
    uint64_t token = ++tokens;
    put(SYNC_BEGIN, directory, inode, token, 0, NULL, 0);
    unlock();
    int result = real(fd);
    lock();
    if (!result) put(SYNC_END, directory, inode, token, 0, NULL, 0);
    unlock();
    return result;
}
int fsync(int fd) { return synced(fd, real_fsync); }
int fdatasync(int fd) { return synced(fd, real_fdatasync); }

/* One or two paths that are changed by `act`. */
#define PATHS(kind, first, second, act)                                                                                                \
    char one[PATH_MAX], two[PATH_MAX];                                                                                                 \
    int in = log_fd >= 0 && resolve(first, one);                                                                                       \
    const char *other = second;                                                                                                        \
    if (in && other && !resolve(other, two)) abort(); /* nothing leaves the root */                                                    \
    if (in) lock();                                                                                                                    \
    int result = act;                                                                                                                  \
    if (in && !result) text(kind, 0, 0, one, other ? two : NULL);                                                                      \
    if (in) unlock();                                                                                                                  \
    return result

int unlink(const char *path) { PATHS(UNLINK, path, NULL, real_unlink(path)); }
int rename(const char *from, const char *to) { PATHS(RENAME, from, to, real_rename(from, to)); }
/* Only what the journal asks for: plain paths, and no exchange of two names. */
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    if (log_fd < 0 || from_folder != AT_FDCWD || to_folder != AT_FDCWD) return real_renameat2(from_folder, from, to_folder, to, flags);
    PATHS(RENAME, from, to, real_renameat2(from_folder, from, to_folder, to, flags));
}
int link(const char *from, const char *to) { PATHS(LINK, from, to, real_link(from, to)); }
int mkdir(const char *path, mode_t mode) { PATHS(MKDIR, path, NULL, real_mkdir(path, mode)); }
int rmdir(const char *path) { PATHS(RMDIR, path, NULL, real_rmdir(path)); }
int unlinkat(int folder, const char *path, int flags) {
    char full[2 * PATH_MAX], base[PATH_MAX];
    if (log_fd < 0 || folder == AT_FDCWD || *path == '/' || !path_of(folder, base)) return real_unlinkat(folder, path, flags);
    snprintf(full, sizeof full, "%s/%s", base, path);
    PATHS(flags & AT_REMOVEDIR ? RMDIR : UNLINK, full, NULL, real_unlinkat(folder, path, flags));
}
