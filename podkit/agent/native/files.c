/* The container's files, for the host: a built-in that runs as a command's user, with one verb and its arguments.
 *
 *   file stat PATH FOLLOW                  numbers are decimal; FOLLOW, PARENTS, EXISTING, RECURSIVE: 0 or 1
 *   file list PATH MOST                    list a directory of at most MOST names
 *   file get PATH BYTES MOST               send a file, or a directory with all below it; MOST 0: files only
 *   file put PATH                          receive the same; missing directories are created
 *   file mkdir PATH MODE PARENTS EXISTING
 *   file remove PATH RECURSIVE
 *   file empty PATH                        remove everything in a directory, except mounts
 *   file rename FROM TO
 *   file share PATH EMPTY [NAME...]        let every user create files in a directory that root owns; it is created if
 *                                          missing; EMPTY 1: only if it holds nothing but the NAMEs
 *
 * It answers with records, and `put` reads records: see records.h. Links are followed as any program in the container
 * follows them.
 */
#include "agent.h"
#include "files.h"
#include "records.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PIPE_SIZE (1 << 20)
#define DEPTH_MAX 10000 /* levels that remove_tree() goes down: each takes some of the stack */

static uint64_t bytes_most, bytes_sent, names_most, names_sent;
static int keeps_mounts, kept; /* whether a removal skips mounts, and how many it has skipped */

/* Append a name to `trail`. Return the length that it had before, for the caller to cut it back to. */
static size_t enter(const char *name)
{
    size_t size = strlen(trail);
    if (size + strlen(name) + 2 > sizeof trail)
        refuse(ENAMETOOLONG);
    if (size)
        strcat(trail, "/");
    strcat(trail, name);
    return size;
}

/* Send ENTRY for `trail`, with the text of a symlink. */
static void send_entry(int at, const char *name, const struct stat *about)
{
    struct entry entry = {.size = (uint64_t)about->st_size, .seconds = about->st_mtim.tv_sec, .mode = about->st_mode,
                          .nanoseconds = (uint32_t)about->st_mtim.tv_nsec, .uid = about->st_uid, .gid = about->st_gid};
    size_t size = sizeof entry + strlen(trail) + 1;
    char *place = begin_record(size + PATH_MAX);
    memcpy(place, &entry, sizeof entry);
    strcpy(place + sizeof entry, trail);
    ssize_t link = S_ISLNK(about->st_mode) ? readlinkat(at, name, place + size, PATH_MAX - 1) : 0;
    size += link > 0 ? (size_t)link : 0;
    place[size] = '\0';
    end_record(ENTRY, size + 1);
}

static DIR *open_stream(int at, const char *name, int flags)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (!stream)
        refuse(errno);
    return stream;
}

/* Return the next name in a directory, valid until the next call; NULL at the end. */
static const char *next_name(DIR *stream)
{
    struct dirent *found;
    do {
        errno = 0;
        found = readdir(stream);
    } while (found && (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0));
    if (!found && errno)
        refuse(errno);
    return found ? found->d_name : NULL;
}

/* Refuse if `more` bytes or names, on top of those sent, are over the limit. */
static void keep_within(uint64_t most, uint64_t sent, uint64_t more, enum refusal limit)
{
    if (more > most - sent)
        refuse_over(limit, sent + more);
}

static void list(const char *path)
{
    DIR *stream = open_stream(AT_FDCWD, path, 0);
    for (const char *name; (name = next_name(stream));) {
        struct stat about;
        if (fstatat(dirfd(stream), name, &about, AT_SYMLINK_NOFOLLOW) != 0)
            continue; /* removed in the meantime */
        keep_within(names_most, names_sent++, 1, TOO_MANY);
        enter(name);
        send_entry(dirfd(stream), name, &about);
        *trail = '\0';
    }
    closedir(stream);
}

static void send_data(int file)
{
    for (;;) {
        char *place = begin_record(PIECE_MAX);
        ssize_t size = read(file, place, PIECE_MAX);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0)
            refuse(errno);
        if (size == 0)
            break;
        /* again, although send_file() has checked: a file may grow, and one in /proc has a size of 0 */
        keep_within(bytes_most, bytes_sent, (uint64_t)size, TOO_LARGE);
        bytes_sent += (uint64_t)size;
        end_record(DATA, (size_t)size);
    }
    begin_record(0);
    end_record(END, 0);
}

/* Send a regular file: ENTRY, DATA and END. */
static void send_file(int at, const char *name, int flags)
{
    struct stat about;
    /* Another process may have put a FIFO or a device in its place since the caller looked. O_NONBLOCK keeps open()
     * from blocking, and what was opened is checked before it is read. */
    int file = openat(at, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | flags);
    if (file < 0 || fstat(file, &about) != 0)
        refuse(errno);
    if (!S_ISREG(about.st_mode))
        refuse(NOT_REGULAR);
    keep_within(bytes_most, bytes_sent, (uint64_t)about.st_size, TOO_LARGE);
    send_entry(at, name, &about);
    send_data(file);
    close(file);
}

/* Send a file, or a directory and everything below it. `flags` is O_NOFOLLOW below the path that was asked for: only
 * that path itself may be a symlink. */
static void send_tree(int at, const char *name, int flags)
{
    struct stat about;
    if (fstatat(at, name, &about, flags ? AT_SYMLINK_NOFOLLOW : 0) != 0) {
        if (*trail && errno == ENOENT)
            return; /* removed in the meantime */
        refuse(errno);
    }
    if (*trail)
        keep_within(names_most, names_sent++, 1, TOO_MANY);
    if (S_ISREG(about.st_mode)) {
        send_file(at, name, flags);
        return;
    }
    if (!*trail && (!S_ISDIR(about.st_mode) || names_most == 0))
        refuse(S_ISDIR(about.st_mode) ? EISDIR : NOT_REGULAR);
    send_entry(at, name, &about);
    if (!S_ISDIR(about.st_mode))
        return;
    DIR *stream = open_stream(at, name, flags);
    for (const char *found; (found = next_name(stream));) {
        size_t here = enter(found);
        send_tree(dirfd(stream), found, O_NOFOLLOW);
        trail[here] = '\0';
    }
    closedir(stream);
}

/* Set `trail` for a refusal: the last name alone, because the path to a deep one may be longer than PATH_MAX. */
static void name_it(const char *name, int depth)
{
    if (depth)
        strcpy(trail, name);
}

/* Make a directory readable and writable for this user, if it is the owner, so that it can be emptied. This works on
 * an opened descriptor: by name, chmod() would follow a symlink that was put in its place, perhaps into a mount. */
static void open_to_owner(int at, const char *name)
{
    char path[32];
    int fd = openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (access(path, R_OK | W_OK | X_OK) != 0)
        (void)!chmod(path, 0700);
    close(fd);
}

/* Remove a file, or a directory with everything below it; never follows a symlink. The errors of unlinkat() tell one
 * from the other: the result of a stat() could be outdated by then. */
static void remove_tree(int at, const char *name, int recursive, int depth)
{
    if (unlinkat(at, name, 0) == 0 || (depth && errno == ENOENT))
        return;
    if (errno == EISDIR && unlinkat(at, name, AT_REMOVEDIR) == 0)
        return;
    if (errno == EBUSY && keeps_mounts) { /* a mount point */
        kept++;
        return;
    }
    name_it(name, depth);
    if ((errno != ENOTEMPTY && errno != EEXIST) || !recursive)
        refuse(errno);
    if (depth >= DEPTH_MAX)
        refuse(ENAMETOOLONG);
    if (keeps_mounts)
        open_to_owner(at, name);
    DIR *stream = open_stream(at, name, O_NOFOLLOW);
    for (const char *found; (found = next_name(stream));)
        remove_tree(dirfd(stream), found, 1, depth + 1);
    closedir(stream);
    name_it(name, depth);
    if (unlinkat(at, name, AT_REMOVEDIR) != 0 && !(kept && errno == ENOTEMPTY)) /* a mount below stays */
        refuse(errno);
}

/* Remove everything in a directory, but no mount and no directory that holds one. */
static void empty(const char *path)
{
    DIR *stream = open_stream(AT_FDCWD, path, 0);
    keeps_mounts = 1;
    for (const char *found; (found = next_name(stream));)
        remove_tree(dirfd(stream), found, 1, 1);
    closedir(stream);
}

static void make_new_directory(char *path, mode_t mode, int parents, int existing)
{
    if (parents)
        make_parents(path);
    make_directory(AT_FDCWD, path, mode, existing);
}

/* Open a directory without following a symlink anywhere in its path. Return -1 on failure. */
static int open_without_links(const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(O_DIRECTORY | O_CLOEXEC | flags), .resolve = RESOLVE_NO_SYMLINKS};
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    if (fd < 0 && errno == ENOSYS && !strchr(path + 1, '/')) /* before Linux 5.6; O_NOFOLLOW does for a single name */
        fd = open(path, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | flags);
    return fd;
}

/* Create a directory without following a symlink, and open it. Return -1 on failure. `path` is changed for a while. */
static int make_without_links(char *path)
{
    char *slash = strrchr(path, '/');
    *slash = '\0';
    int above = open_without_links(slash == path ? "/" : path, O_PATH);
    *slash = '/';
    if (above < 0)
        return -1;
    int failed = mkdirat(above, slash + 1, 0777);
    close(above);
    return failed ? -1 : open_without_links(path, O_RDONLY);
}

static int is_one_of(const char *name, char **names)
{
    for (; *names; names++)
        if (strcmp(*names, name) == 0)
            return 1;
    return 0;
}

/* Return whether a directory holds nothing but these names. */
static int holds_only(int directory, char **names)
{
    DIR *stream = fdopendir(dup(directory));
    const char *found = NULL;
    if (!stream)
        return 0;
    do
        found = next_name(stream);
    while (found && is_one_of(found, names));
    closedir(stream);
    return !found;
}

/* Open a directory that root owns to every user; create it if it is missing. Do nothing if it cannot be opened
 * safely.
 *
 * This process is root, and another user may own a directory in the path. That user could put a symlink there and
 * have any directory opened, so no symlink is followed. */
static void share(char *path, int only_empty, char **names)
{
    struct stat about;
    int directory = *path == '/' ? open_without_links(path, O_RDONLY) : -1;
    if (directory < 0 && errno == ENOENT)
        directory = make_without_links(path);
    if (directory < 0 || fstat(directory, &about) != 0 || about.st_uid != 0)
        return;
    if ((!only_empty || holds_only(directory, names)) && fchmod(directory, 0777) != 0 && errno != EROFS)
        refuse(errno);
}

/* Rename. ENOENT can mean either path: it becomes NO_PARENT if FROM exists. */
static void rename_to(const char *from, const char *to)
{
    struct stat about;
    if (rename(from, to) == 0)
        return;
    int why = errno;
    refuse(why == ENOENT && fstatat(AT_FDCWD, from, &about, AT_SYMLINK_NOFOLLOW) == 0 ? NO_PARENT : why);
}

static void send_stat(const char *path, int follow)
{
    struct stat about;
    if (fstatat(AT_FDCWD, path, &about, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0)
        refuse(errno);
    send_entry(AT_FDCWD, path, &about);
}

/* Set signals and limits. A closed pipe and a file-size limit become errors of write() that can be reported. */
static void settle(void)
{
    struct rlimit files;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max; /* each level of a tree takes a descriptor */
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

int file_main(char **arguments)
{
    size_t count = 0;
    while (arguments[count])
        count++;
    if (count < 3 || strlen(arguments[2]) >= PATH_MAX)
        return 64;
    char *verb = arguments[1], *path = arguments[2];
    uint64_t number = count > 3 ? strtoull(arguments[3], NULL, 10) : 0;
    settle();
    if (strcmp(verb, "stat") == 0) {
        send_stat(path, number != 0);
    } else if (strcmp(verb, "list") == 0) {
        names_most = number;
        list(path);
    } else if (strcmp(verb, "get") == 0 && count == 5) {
        fcntl(1, F_SETPIPE_SZ, PIPE_SIZE);
        bytes_most = number;
        names_most = strtoull(arguments[4], NULL, 10);
        send_tree(AT_FDCWD, path, 0);
    } else if (strcmp(verb, "put") == 0) {
        fcntl(0, F_SETPIPE_SZ, PIPE_SIZE);
        put_files(path);
    } else if (strcmp(verb, "mkdir") == 0 && count == 6) {
        make_new_directory(path, (mode_t)number, *arguments[4] == '1', *arguments[5] == '1');
    } else if (strcmp(verb, "remove") == 0) {
        remove_tree(AT_FDCWD, path, number != 0, 0);
    } else if (strcmp(verb, "empty") == 0) {
        empty(path);
    } else if (strcmp(verb, "share") == 0 && count > 3) {
        share(path, number != 0, arguments + 4);
    } else if (strcmp(verb, "rename") == 0 && count == 4) {
        rename_to(path, arguments[3]);
    } else {
        return 64;
    }
    begin_record(0);
    end_record(DONE, 0);
    flush_records();
    return 0;
}
