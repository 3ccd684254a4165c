/* The directories of background processes. Each is in the first of three places where it can be created. */
#include "background.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ROOM_MS 200
#define KEPT 128 /* ended processes that are remembered; then the oldest is forgotten */

static const char *const places[PLACES] = {
    "/run/podkit-processes", "/tmp/.podkit-processes", "/dev/shm/.podkit-processes",
};

int open_place(size_t index, int make)
{
    char path[64];
    struct stat about;
    snprintf(path, sizeof path, "%s-%u", places[index], geteuid());
    if (make && mkdir(path, 0700) != 0 && errno != EEXIST)
        return -1;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    /* another user may have created this path in /tmp: use it only if nobody else can write there */
    if (fd >= 0 && (fstat(fd, &about) != 0 || about.st_uid != geteuid() || about.st_mode & 077)) {
        close(fd);
        errno = EPERM;
        return -1;
    }
    return fd;
}

int is_id(const char *name)
{
    return strlen(name) == ID_SIZE && strspn(name, "0123456789abcdef-") == ID_SIZE;
}

static int open_directory(int place, const char *name)
{
    return openat(place, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int open_in(int place, const char *id)
{
    return is_id(id) ? open_directory(place, id) : -1;
}

int open_file(int directory, const char *name)
{
    struct stat about;
    int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode))) {
        close(fd);
        return -1;
    }
    return fd;
}

size_t read_file(int directory, const char *name, void *data, size_t size)
{
    int fd = open_file(directory, name);
    ssize_t found = fd < 0 ? 0 : pread(fd, data, size, 0);
    if (fd >= 0)
        close(fd);
    return found > 0 ? (size_t)found : 0;
}

int forget(int place, const char *name)
{
    char aside[ID_SIZE + 3];
    int fd = open_directory(place, name);
    DIR *files = fd < 0 ? NULL : fdopendir(fd);
    if (!files)
        return -1;
    for (struct dirent *entry; (entry = readdir(files));)
        unlinkat(dirfd(files), entry->d_name, 0);
    closedir(files);
    if (unlinkat(place, name, AT_REMOVEDIR) == 0)
        return 0;
    /* Another process has created a directory in it. Rename it to something that is no id, or make_room() would
     * choose it as the oldest again and again. */
    snprintf(aside, sizeof aside, "-%s", name);
    return renameat(place, name, place, aside);
}

static int is_before(const struct timespec *one, const struct timespec *other)
{
    return one->tv_sec < other->tv_sec || (one->tv_sec == other->tv_sec && one->tv_nsec < other->tv_nsec);
}

/* Find the process that ended first; "" if fewer than KEPT ended ones are remembered. */
static void find_oldest(int place, char oldest[ID_SIZE + 1])
{
    struct stat about, best = {0};
    size_t count = 0, ended = 0;
    int copy = openat(place, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = copy < 0 ? NULL : fdopendir(copy);
    *oldest = '\0';
    for (struct dirent *entry; entries && (entry = readdir(entries));)
        count += (size_t)is_id(entry->d_name);
    if (entries)
        rewinddir(entries);
    for (struct dirent *entry; entries && count >= KEPT && (entry = readdir(entries));) {
        int directory = open_in(place, entry->d_name);
        if (directory < 0)
            continue;
        /* the directory's mtime is the time of the end: the keeper removes its socket then */
        if (!is_kept(directory) && fstat(directory, &about) == 0) {
            ended++;
            if (!*oldest || is_before(&about.st_mtim, &best.st_mtim)) {
                best = about;
                strcpy(oldest, entry->d_name);
            }
        }
        close(directory);
    }
    if (ended < KEPT)
        *oldest = '\0';
    if (entries)
        closedir(entries);
}

void make_room(int place)
{
    char oldest[ID_SIZE + 1];
    int64_t end = now_ms() + ROOM_MS; /* another process may have created thousands */
    do
        find_oldest(place, oldest);
    while (*oldest && forget(place, oldest) == 0 && now_ms() < end);
}

/* Create a file with this content. Return its descriptor, or -1. */
static int write_file(int directory, const char *name, const void *data, size_t size)
{
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0 && write(fd, data, size) != (ssize_t)size) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Create the pipe of the process's input. Not a FIFO with a name: once nobody has that open for writing, a process that
 * opens its /dev/stdin would block for ever. */
static int make_input(int ends[2])
{
    return pipe2(ends, O_CLOEXEC) == 0 && fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0 ? 0 : -1;
}

static int make_control(int directory)
{
    struct sockaddr_un address = control_of(directory);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 64) != 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

int make_state(int place, const char *id, const char *note, int with_input, const struct record *record,
               struct keeper *own)
{
    /* A name that is no id until it is complete: others must not see it before its record is locked. */
    char unfinished[ID_SIZE + 2];
    snprintf(unfinished, sizeof unfinished, "+%s", id);
    *own = (struct keeper){.id = id, .directory = -1, .record = -1, .control = -1, .input = {-1, -1}, .report = -1};
    if (mkdirat(place, unfinished, 0700) != 0)
        return -1;
    own->directory = open_directory(place, unfinished);
    int written = own->directory < 0 ? -1 : write_file(own->directory, "note", note, strlen(note));
    if (written >= 0)
        close(written);
    if (written >= 0 && (own->record = write_file(own->directory, "record", record, sizeof *record)) >= 0 &&
        flock(own->record, LOCK_EX | LOCK_NB) == 0 &&
        (own->control = make_control(own->directory)) >= 0 &&
        (!with_input || make_input(own->input) == 0) &&
        renameat(place, unfinished, place, id) == 0)
        return 0;
    int error = errno, opened[] = {own->directory, own->record, own->control, own->input[0], own->input[1]};
    for (size_t i = 0; i < sizeof opened / sizeof *opened; i++)
        if (opened[i] >= 0)
            close(opened[i]);
    forget(place, unfinished);
    errno = error;
    return -1;
}
