/* Into the container: files that appear when they are complete, directories and links. */
#include "agent.h"
#include "files.h"
#include "records.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINKS_MAX 40
#define ALLOCATED_AT_LEAST (256u << 10) /* bytes of one DATA record */

const char *root = "";

/* Refuse what was opened where it does not lie in the root. By the descriptor: the name may mean something else by now. */
void check_place(int fd)
{
    char path[32], place[PATH_MAX];
    size_t size = strlen(root);
    if (size < 2)
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, place, sizeof place - 1);
    if (length < 0)
        refuse(errno);
    place[length] = '\0';
    if (strncmp(place, root, size) != 0 || (place[size] != '/' && place[size] != '\0'))
        refuse(ESCAPES);
}

/* The file that is being written. */
static struct {
    int directory, file;
    char name[NAME_MAX + 1];
    char temporary[32]; /* its name until it is complete; "" while it has none */
    struct stat before; /* what it replaces; all zeros for nothing */
    uint32_t mode;
} target = {.directory = -1, .file = -1};

static void drop_temporary(void)
{
    if (*target.temporary)
        unlinkat(target.directory, target.temporary, 0);
}

static void on_term(int number)
{
    (void)number;
    drop_temporary();
    _exit(1);
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
    check_place(directory);
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
    if (mkdirat(at, path, mode) == 0)
        return;
    if (errno == EEXIST && !(may_exist && fstatat(at, path, &about, 0) == 0 && S_ISDIR(about.st_mode)))
        refuse(EEXIST);
    else if (errno != EEXIST)
        refuse(errno);
}

/* Open the directory in which the file of this path lies, or will lie; `name` becomes the file's own. A link there is
 * followed, if it is the path that was asked for. */
static int open_parent(int at, const char *path, char *name)
{
    char rest[PATH_MAX];
    strcpy(rest, path);
    for (int links = 0; links < LINKS_MAX; links++) {
        char *slash = strrchr(rest, '/');
        const char *last = slash ? slash + 1 : rest;
        if (!*last || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
            refuse(EISDIR);
        if (strlen(last) > NAME_MAX)
            refuse(ENAMETOOLONG);
        strcpy(name, last);
        strcpy(slash ? slash + (slash == rest) : rest, slash ? "" : "."); /* the root keeps its slash */
        int directory = open_directory(at, rest);
        if (links)
            close(at);
        ssize_t size = *trail ? -1 : readlinkat(directory, name, rest, sizeof rest - 1);
        if (size < 0)
            return directory;
        if (*root)
            refuse(ESCAPES);
        rest[size] = '\0';
        at = directory;
    }
    refuse(ELOOP);
}

static void name_temporary(void)
{
    uint64_t random = (uint64_t)now_ms() ^ (uint64_t)getpid() << 32;
    (void)!getrandom(&random, sizeof random, GRND_NONBLOCK);
    snprintf(target.temporary, sizeof target.temporary, ".podkit-%016llx", (unsigned long long)random);
}

static void begin_file(uint32_t mode)
{
    target.mode = mode;
    if (fstatat(target.directory, target.name, &target.before, AT_SYMLINK_NOFOLLOW) != 0)
        memset(&target.before, 0, sizeof target.before);
    else if (S_ISDIR(target.before.st_mode))
        refuse(EISDIR);
    else if (!S_ISREG(target.before.st_mode) && !S_ISLNK(target.before.st_mode))
        refuse(NOT_REGULAR);
    /* a file without a name goes by itself where this process is killed; not every file system has them */
    target.file = openat(target.directory, ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600);
    if (target.file >= 0)
        return;
    name_temporary();
    target.file = openat(target.directory, target.temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (target.file < 0) {
        *target.temporary = '\0';
        refuse(errno == ENOENT ? EPERM : errno); /* the directory is there: such as /proc, it takes no files */
    }
}

static void set_owner_and_mode(const struct user *owner)
{
    const struct stat *before = &target.before;
    int replaces = S_ISREG(before->st_mode);
    mode_t mask = umask(0), usual = replaces ? before->st_mode & 0777 : 0666 & ~mask;
    umask(mask);
    if (owner && fchown(target.file, owner->uid, owner->gid) != 0)
        refuse(errno);
    if (!owner && replaces && (before->st_uid != geteuid() || before->st_gid != getegid()))
        (void)!fchown(target.file, before->st_uid, before->st_gid); /* as far as this user may */
    if (fchmod(target.file, target.mode == KEEP_MODE ? usual : target.mode & 07777) != 0)
        refuse(errno);
}

static void end_file(const struct user *owner)
{
    char path[32];
    int directory = target.directory;
    set_owner_and_mode(owner);
    if (!*target.temporary) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", target.file);
        int failed = linkat(AT_FDCWD, path, directory, target.name, AT_SYMLINK_FOLLOW);
        if (failed && errno == EEXIST) { /* a link replaces nothing, a renaming does */
            name_temporary();
            failed = linkat(AT_FDCWD, path, directory, target.temporary, AT_SYMLINK_FOLLOW);
        }
        if (failed)
            refuse(errno);
    }
    if (*target.temporary && renameat(directory, target.temporary, directory, target.name) != 0)
        refuse(errno);
    *target.temporary = '\0';
    if (close(target.file) != 0)
        refuse(errno);
    target.file = -1;
    close(directory);
}

static void make_link(const char *text)
{
    name_temporary();
    if (symlinkat(text, target.directory, target.temporary) != 0 ||
        renameat(target.directory, target.temporary, target.directory, target.name) != 0)
        refuse(errno);
    *target.temporary = '\0';
    close(target.directory);
}

/* As a directory of the host, whatever the umask; but open to the files that follow. */
static void make_directory_of(int at, const char *path, uint32_t mode)
{
    mode_t mask = umask(0);
    make_directory(at, path, (mode & 0777) | 0700, 1);
    umask(mask);
}

/* Make what an ENTRY names. `tree` is the directory that all others lie below, once there is one. */
static void make(char *path, int *tree, const struct entry *entry, const char *link)
{
    if (*trail && *tree < 0)
        refuse(EPROTO);
    if (S_ISDIR(entry->mode) && *trail) {
        make_directory_of(*tree, trail, entry->mode);
    } else if (S_ISDIR(entry->mode)) {
        make_parents(path);
        make_directory_of(AT_FDCWD, path, entry->mode);
        *tree = open_directory(AT_FDCWD, path);
    } else {
        target.directory = open_parent(*trail ? *tree : AT_FDCWD, *trail ? trail : path, target.name);
        if (entry->mode != KEEP_MODE && S_ISLNK(entry->mode))
            make_link(link);
        else
            begin_file(entry->mode);
    }
}

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

/* Have room on the disk for what comes. Else some file systems (ext4) choose the place when the file takes the name of
 * another one, and write it there and then: a fifth of the time of a large file. Where it cannot be had, the writing
 * itself will say why. */
static void allocate(size_t size)
{
    off_t end = lseek(target.file, 0, SEEK_CUR);
    if (size >= ALLOCATED_AT_LEAST && end >= 0)
        (void)!posix_fallocate(target.file, end, (off_t)size); /* the system call, and no emulation of it */
}

static void take_data(size_t left)
{
    allocate(left);
    while (left) {
        char *data;
        size_t size = take_some(left, &data);
        left -= size;
        while (size) {
            ssize_t done = write(target.file, data, size);
            if (done < 0 && errno != EINTR)
                refuse(errno);
            data += done > 0 ? done : 0;
            size -= done > 0 ? (size_t)done : 0;
        }
    }
}

void put_files(char *path, const char *owner_text)
{
    struct user user, *owner = *owner_text ? &user : NULL;
    struct record_header header;
    int tree = -1;
    give_up = drop_temporary;
    signal(SIGTERM, on_term);
    if (owner && find_user(owner_text, owner) != 0)
        refuse(NO_OWNER);
    for (;;) {
        memcpy(&header, take(sizeof header), sizeof header);
        int in_file = target.file >= 0;
        if (header.type == ENTRY && !in_file)
            take_entry(path, &tree, header.length);
        else if (header.type == DATA && in_file)
            take_data(header.length);
        else if (header.type == END && in_file)
            end_file(owner);
        else if (header.type == DONE && !in_file)
            return;
        else
            refuse(EPROTO);
    }
}
