/* Writes files, directories and links into the container. A file appears under its name when it is complete, so
 * that no reader sees half of it, and a killed writer leaves the old file unchanged.
 *
 * The new file has no name while it is written (O_TMPFILE), or a temporary one with a lock on it. A file that
 * cannot be replaced, such as a mount, is written in place.
 */
#include "agent.h"
#include "files.h"
#include "records.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINKS_MAX 40
#define RANDOM_MAX 8 /* random temporary names that are tried last */
#define NAMES_MAX 64 /* temporary names made from the file's name: more than there are writers of one file at a time */
#define COPY_SIZE (64u << 10)
#define ALLOCATED_AT_LEAST (256u << 10) /* smallest DATA record for which space is allocated first */

/* The file that is being written. */
static struct {
    int directory, file;
    char name[NAME_MAX + 1];
    char temporary[32]; /* its name until it is complete; "" while it has none */
    struct stat before; /* of the file that it replaces; all zeros if there is none */
    uint32_t mode;
    int in_place; /* `file` is the old file itself */
} target = {.directory = -1, .file = -1};

static void drop_temporary(void)
{
    if (*target.temporary)
        unlinkat(target.directory, target.temporary, 0);
    *target.temporary = '\0';
}

/* Clean up and exit, but only for the supervisor's SIGTERM: a command's kill(-1, ...) must not end a write. */
static void on_term(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    if (info->si_pid != getppid())
        return;
    drop_temporary();
    _exit(1);
}

static void listen_to_supervisor(void)
{
    struct sigaction action = {.sa_sigaction = on_term, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigaction(SIGTERM, &action, NULL);
    sigprocmask(SIG_UNBLOCK, &term, NULL);
}

int open_directory(int at, char *path)
{
    int directory = openat(at, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 && errno == ENOENT) {
        char *slash = strrchr(path, '/'), *name = path;
        int above = at;
        if (slash && slash > path) {
            *slash = '\0';
            above = open_directory(at, path);
            *slash = '/';
            name = slash + 1;
        }
        if (mkdirat(above, name, 0777) != 0 && errno != EEXIST)
            refuse(errno);
        directory = openat(above, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (above != at)
            close(above);
    }
    if (directory < 0)
        refuse(errno);
    return directory;
}

void make_parents(char *path)
{
    char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return;
    *slash = '\0';
    close(open_directory(AT_FDCWD, path));
    *slash = '/';
}

void make_directory(int at, const char *path, mode_t mode, int may_exist)
{
    struct stat about;
    int flags = at == AT_FDCWD ? 0 : AT_SYMLINK_NOFOLLOW; /* only the path that was asked for may be a symlink */
    if (mkdirat(at, path, mode) == 0)
        return;
    if (errno == EEXIST && !(may_exist && fstatat(at, path, &about, flags) == 0 && S_ISDIR(about.st_mode)))
        refuse(EEXIST);
    else if (errno != EEXIST)
        refuse(errno);
}

/* Copy `size` bytes of text into a name of NAME_MAX + 1 bytes. */
static void keep_name(char *name, const char *text, size_t size)
{
    if (size > NAME_MAX)
        refuse(ENAMETOOLONG);
    memcpy(name, text, size);
    name[size] = '\0';
}

/* Open the parent directory of `below`, a path relative to `tree`; copy its last name to `name`. The caller closes it.
 *
 * No symlink is followed: another process may have put it there to lead the write out of the tree. */
static int open_below(int tree, const char *below, char *name)
{
    int at = dup(tree);
    for (const char *slash; at >= 0 && (slash = strchr(below, '/')); below = slash + 1) {
        keep_name(name, below, (size_t)(slash - below));
        int next = openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close(at);
        if (next < 0)
            refuse(errno == ENOTDIR || errno == ELOOP ? EEXIST : errno);
        at = next;
    }
    if (at < 0)
        refuse(errno);
    keep_name(name, below, strlen(below));
    return at;
}

/* Open the parent directory of a file, creating it if it is missing; copy the file's name to `name`. The caller
 * closes it.
 *
 * If the file is a symlink, this is the parent of its target: as in any program, a write goes through a link and
 * does not replace it. */
static int open_parent(const char *path, char *name)
{
    char rest[PATH_MAX];
    int at = AT_FDCWD;
    strcpy(rest, path);
    for (int links = 0; links < LINKS_MAX; links++) {
        char *slash = strrchr(rest, '/');
        const char *last = slash ? slash + 1 : rest;
        if (!*last || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
            refuse(EISDIR);
        keep_name(name, last, strlen(last));
        strcpy(slash ? slash + (slash == rest) : rest, slash ? "" : "."); /* the root keeps its slash */
        int directory = open_directory(at, rest);
        if (links)
            close(at);
        ssize_t size = readlinkat(directory, name, rest, sizeof rest - 1);
        if (size < 0) /* not a symlink, or nothing is there */
            return directory;
        rest[size] = '\0';
        at = directory;
    }
    refuse(ELOOP);
}

/* --- a name until the file is complete ---------------------------------------------------------------------------- */

/* Choose the temporary name. It is made from the file's own name, so that the next writer of this file finds and
 * removes the leftover of a killed one. Another process could guess and occupy these names, so after NAMES_MAX
 * attempts they are random. */
static void name_temporary(unsigned attempt)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (const char *at = target.name; *at; at++)
        hash = (hash ^ (unsigned char)*at) * 1099511628211u;
    if (attempt >= NAMES_MAX && getrandom(&hash, sizeof hash, GRND_NONBLOCK) < 0)
        hash += (uint64_t)now_ms();
    snprintf(target.temporary, sizeof target.temporary, ".podkit-%016llx", (unsigned long long)(hash + attempt));
}

/* Return whether no writer needs the file of the temporary name any more: a writer holds a lock on its file. */
static int is_forsaken(void)
{
    int fd = openat(target.directory, target.temporary, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return errno == ELOOP; /* a symlink: make_link() renames its own at once, so this one was left behind */
    int locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return locked;
}

/* Create and lock the file of the temporary name. Return 0; -1 on failure, with errno set.
 *
 * Between open and lock, another writer may find it unlocked and remove it. So check that it still has a name, and fail
 * with EEXIST if not: the caller tries again. */
static int make_file(const char *unused)
{
    struct stat about;
    (void)unused;
    target.file = openat(target.directory, target.temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (target.file < 0)
        return -1;
    if ((flock(target.file, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) &&
        fstat(target.file, &about) == 0 && about.st_nlink > 0)
        return 0;
    close(target.file);
    target.file = -1;
    errno = EEXIST;
    return -1;
}

/* Link the unnamed file to the temporary name. */
static int give_name(const char *unused)
{
    char path[32];
    (void)unused;
    snprintf(path, sizeof path, "/proc/self/fd/%d", target.file);
    return linkat(AT_FDCWD, path, target.directory, target.temporary, AT_SYMLINK_FOLLOW);
}

static int make_symlink(const char *text)
{
    return symlinkat(text, target.directory, target.temporary);
}

/* Call `make` with temporary names until one is free; remove what killed writers have left there. Return 0; -1 on
 * failure, with errno set. */
static int make_temporary(int (*make)(const char *text), const char *text)
{
    for (unsigned attempt = 0; attempt < NAMES_MAX + RANDOM_MAX; attempt++) {
        name_temporary(attempt);
        for (int tries = 0; tries < 2; tries++) {
            if (make(text) == 0)
                return 0;
            int error = errno;
            if (error == EEXIST && is_forsaken() && unlinkat(target.directory, target.temporary, 0) == 0)
                continue;
            errno = error;
            break;
        }
        if (errno != EEXIST)
            break;
    }
    if (errno == EEXIST)
        errno = EBUSY; /* all names are occupied */
    *target.temporary = '\0';
    return -1;
}

static void write_all(const char *data, size_t size)
{
    while (size) {
        ssize_t done = write(target.file, data, size);
        if (done < 0 && errno != EINTR)
            refuse(errno);
        data += done > 0 ? done : 0;
        size -= done > 0 ? (size_t)done : 0;
    }
}

/* --- a file ------------------------------------------------------------------------------------------------------- */

/* Return whether the directory takes no new file for a reason that may not apply to an old file in it. */
static int is_closed_directory(int error)
{
    return error == EACCES || error == EPERM || error == EROFS || error == ENOENT; /* ENOENT: in /proc */
}

/* Return whether the file has the wanted mode already; otherwise store its mode in `mode`. */
static int has_wanted_mode(mode_t *mode)
{
    struct stat about;
    if (target.mode == KEEP_MODE)
        return 1;
    if (fstat(target.file, &about) != 0)
        refuse(errno);
    *mode = about.st_mode & 07777;
    return *mode == (target.mode & 07777);
}

static int is_removed(int directory)
{
    struct stat about;
    return fstat(directory, &about) == 0 && about.st_nlink == 0;
}

/* Open and truncate the old file, to be written in place. Readers see the change at once, and a failure leaves half a
 * file: this is the last resort. */
static void open_in_place(void)
{
    mode_t mode;
    target.file = openat(target.directory, target.name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (target.file < 0)
        refuse(errno);
    /* Only the owner can set the mode, and this user may be another one who may write the file. Find that out before
     * the content is lost, by setting the mode that the file already has. */
    if (!has_wanted_mode(&mode) && fchmod(target.file, mode) != 0)
        refuse(errno);
    if (ftruncate(target.file, 0) != 0)
        refuse(errno);
    target.in_place = 1;
}

/* Begin to write target.name: open an unnamed file, else one of a temporary name, else the old file in place. */
static void begin_file(uint32_t mode)
{
    target.mode = mode;
    target.in_place = 0;
    if (fstatat(target.directory, target.name, &target.before, AT_SYMLINK_NOFOLLOW) != 0)
        memset(&target.before, 0, sizeof target.before);
    else if (S_ISDIR(target.before.st_mode))
        refuse(EISDIR);
    else if (!S_ISREG(target.before.st_mode) && !S_ISLNK(target.before.st_mode))
        refuse(NOT_REGULAR);
    /* A write-protected file is not replaced, although write access to the directory would be enough for that. */
    if (S_ISREG(target.before.st_mode) && faccessat(target.directory, target.name, W_OK, 0) != 0)
        refuse(errno);
    /* An unnamed file disappears if this process is killed. Not every file system has them. */
    target.file = openat(target.directory, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (target.file >= 0) {
        (void)flock(target.file, LOCK_EX | LOCK_NB);
        return;
    }
    if (make_temporary(make_file, NULL) == 0)
        return;
    if (S_ISREG(target.before.st_mode) && is_closed_directory(errno))
        open_in_place();
    else
        /* ENOENT in a directory that exists: /proc takes no files */
        refuse(errno == ENOENT && !is_removed(target.directory) ? EPERM : errno);
}

/* Give the new file the owner of the old one, and its mode unless another was asked for. Return 0 if this user may
 * not give files away: then the old file has to be written in place, to keep its owner. */
static int set_owner_and_mode(void)
{
    const struct stat *before = &target.before;
    int replaces = S_ISREG(before->st_mode);
    mode_t mask = umask(0), usual = replaces ? before->st_mode & 0777 : 0666 & ~mask;
    umask(mask);
    if (replaces && (before->st_uid != geteuid() || before->st_gid != getegid()) &&
        fchown(target.file, before->st_uid, before->st_gid) != 0)
        return 0;
    /* after fchown(), which clears set-user-id bits */
    if (fchmod(target.file, target.mode == KEEP_MODE ? usual : target.mode & 07777) != 0)
        refuse(errno);
    return 1;
}

/* Make the new file appear under its name, atomically. Return 0; -1 on failure, with errno set. */
static int appear(void)
{
    char path[32];
    if (!*target.temporary) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", target.file);
        if (linkat(AT_FDCWD, path, target.directory, target.name, AT_SYMLINK_FOLLOW) == 0)
            return 0;
        /* linkat() cannot replace a file, but rename() can: so link it to a temporary name first */
        if (errno != EEXIST || make_temporary(give_name, NULL) != 0)
            return -1;
    }
    if (renameat(target.directory, target.temporary, target.directory, target.name) != 0)
        return -1;
    *target.temporary = '\0';
    return 0;
}

/* Copy the new file's content into the old one. That is for a mount, which cannot be replaced, and for a file that
 * would change its owner. */
static void copy_in_place(void)
{
    int source = target.file;
    off_t at = 0;
    ssize_t size;
    char piece[COPY_SIZE];
    open_in_place();
    while ((size = pread(source, piece, sizeof piece, at)) != 0) {
        if (size < 0)
            refuse(errno);
        write_all(piece, (size_t)size);
        at += size;
    }
    close(source);
    drop_temporary();
}

/* Handle END: the content is complete, so the file replaces the old one, or is copied into it. */
static void end_file(void)
{
    if (!target.in_place) {
        int is_ready = set_owner_and_mode(), has_appeared = is_ready && appear() == 0;
        if (is_ready && !has_appeared && errno != EBUSY) /* EBUSY: a mount, or no temporary name is free */
            refuse(errno);
        if (!has_appeared)
            copy_in_place();
    }
    mode_t mode;
    if (target.in_place && !has_wanted_mode(&mode) && fchmod(target.file, target.mode & 07777) != 0)
        refuse(errno);
    if (close(target.file) != 0)
        refuse(errno);
    target.file = -1;
    close(target.directory);
}

/* Create a symlink under a temporary name and rename it, which also replaces an old one. */
static void make_link(const char *text)
{
    for (int tries = 0; tries < LINKS_MAX; tries++) {
        if (make_temporary(make_symlink, text) != 0)
            refuse(errno);
        if (renameat(target.directory, target.temporary, target.directory, target.name) == 0)
            break;
        if (errno != ENOENT || tries == LINKS_MAX - 1) /* ENOENT: another writer has removed it, see is_forsaken() */
            refuse(errno);
    }
    *target.temporary = '\0';
    close(target.directory);
}

/* Create a directory with its mode on the host, regardless of the umask. The owner always gets full access, for the
 * files that follow. */
static void make_directory_of(int at, const char *path, uint32_t mode)
{
    mode_t mask = umask(0);
    make_directory(at, path, (mode & 0777) | 0700, 1);
    umask(mask);
}

/* Create what an ENTRY names, or begin to. `tree` is the top directory, which all further entries are below; -1 until
 * it has been created. */
static void make(char *path, int *tree, const struct entry *entry, const char *link)
{
    if (*trail && *tree < 0)
        refuse(EPROTO);
    if (S_ISDIR(entry->mode) && *trail) {
        char name[NAME_MAX + 1];
        int above = open_below(*tree, trail, name);
        make_directory_of(above, name, entry->mode);
        close(above);
    } else if (S_ISDIR(entry->mode)) {
        make_parents(path);
        make_directory_of(AT_FDCWD, path, entry->mode);
        *tree = open_directory(AT_FDCWD, path);
    } else {
        target.directory = *trail ? open_below(*tree, trail, target.name) : open_parent(path, target.name);
        if (entry->mode != KEEP_MODE && S_ISLNK(entry->mode))
            make_link(link);
        else
            begin_file(entry->mode);
    }
}

/* Read and check an ENTRY of `size` bytes, then make() it. */
static void take_entry(char *path, int *tree, size_t size)
{
    struct entry entry;
    char *place = take(size), *below = place + sizeof entry, *end = place + size;
    if (size < sizeof entry + 2 || end[-1] != '\0' || below + strlen(below) + 1 >= end || strlen(below) >= sizeof trail)
        refuse(EPROTO);
    memcpy(&entry, place, sizeof entry);
    strcpy(trail, below);
    make(path, tree, &entry, below + strlen(below) + 1);
}

/* Allocate disk space for the next DATA record. Otherwise ext4, for one, allocates when the file replaces another one
 * and writes all of it at that moment: a fifth of the time of a large file. An error is ignored, because the write
 * will fail for the same reason. */
static void allocate(size_t size)
{
    off_t end = target.in_place ? -1 : lseek(target.file, 0, SEEK_CUR);
    if (size >= ALLOCATED_AT_LEAST && end >= 0)
        (void)!posix_fallocate(target.file, end, (off_t)size); /* musl makes the system call and does not emulate it */
}

static void take_data(size_t left)
{
    allocate(left);
    while (left) {
        char *data;
        size_t size = take_some(left, &data);
        left -= size;
        write_all(data, size);
    }
}

void put_files(char *path)
{
    struct record_header header;
    int tree = -1;
    give_up = drop_temporary;
    listen_to_supervisor();
    for (;;) {
        memcpy(&header, take(sizeof header), sizeof header);
        int in_file = target.file >= 0;
        if (header.type == ENTRY && !in_file)
            take_entry(path, &tree, header.length);
        else if (header.type == DATA && in_file)
            take_data(header.length);
        else if (header.type == END && in_file)
            end_file();
        else if (header.type == DONE && !in_file)
            return;
        else
            refuse(EPROTO);
    }
}
