/* The output of background processes. A keeper writes it, and readers need no lock.
 *
 * Each stream has at most two files: a full one and the current one. Their names say at which offset they begin, so
 * offsets stay valid after older files are dropped. Output that cannot be written, because the disk is full, is lost:
 * it reads as zeros, or as a gap between the files.
 */
#include "background.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT (5u << 20)
#define NOWHERE UINT64_MAX

static void name_file(char name[32], int stream, uint64_t begin)
{
    snprintf(name, 32, "%d.%016llx", stream, (unsigned long long)begin);
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

void open_log(struct log *log, int directory, int stream, int pipe)
{
    *log = (struct log){directory, stream, pipe, -1, NOWHERE, NOWHERE, 0};
    fcntl(pipe, F_SETFL, O_NONBLOCK);
}

/* Begin a new file at the end of the log, and drop the oldest one. After a failure, the next write tries again. */
static void begin_file(struct log *log)
{
    char name[32];
    if (log->older != NOWHERE) {
        name_file(name, log->stream, log->older);
        unlinkat(log->directory, name, 0);
        log->older = NOWHERE;
    }
    name_file(name, log->stream, log->end);
    log->file = openat(log->directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log->file < 0)
        return;
    log->older = log->begin;
    log->begin = log->end;
}

static void write_log(struct log *log, const char *data, size_t size)
{
    if (log->file >= 0 && log->end - log->begin >= SEGMENT) {
        close(log->file);
        log->file = -1;
    }
    if (log->file < 0)
        begin_file(log);
    off_t at = (off_t)(log->end - log->begin);
    if (log->file >= 0 && pwrite(log->file, data, size, at) != (ssize_t)size)
        (void)!ftruncate(log->file, at + (off_t)size); /* what could not be written reads as zeros */
    log->end += size;
}

void drain_log(struct log *log, size_t most)
{
    static char buffer[LOG_BUFFER];
    while (log->pipe >= 0 && most > 0) {
        ssize_t size = read(log->pipe, buffer, most < sizeof buffer ? most : sizeof buffer);
        if (size < 0)
            return;
        if (size == 0) {
            close(log->pipe);
            log->pipe = -1;
            return;
        }
        write_log(log, buffer, (size_t)size);
        most -= (size_t)size;
    }
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

/* The two files around an offset, as the offsets at which they begin. */
struct span {
    uint64_t before, after; /* the last file that begins at the offset or before, and the first one after it */
    uint64_t end;           /* of the whole stream */
};

static struct span find_files(int directory, int stream, uint64_t offset)
{
    struct span span = {NOWHERE, NOWHERE, 0};
    struct stat about;
    int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *files = copy < 0 ? NULL : fdopendir(copy);
    for (struct dirent *entry; files && (entry = readdir(files));) {
        if (entry->d_name[0] != '0' + stream || entry->d_name[1] != '.')
            continue;
        uint64_t begin = strtoull(entry->d_name + 2, NULL, 16);
        if (begin <= offset && (span.before == NOWHERE || begin > span.before))
            span.before = begin;
        if (begin > offset && begin < span.after)
            span.after = begin;
        if (fstatat(directory, entry->d_name, &about, AT_SYMLINK_NOFOLLOW) == 0 &&
            begin + (uint64_t)about.st_size > span.end)
            span.end = begin + (uint64_t)about.st_size;
    }
    if (files)
        closedir(files);
    return span;
}

ssize_t read_log(int directory, int stream, int64_t *offset, char *buffer, size_t size)
{
    char name[32];
    uint64_t wanted = (uint64_t)*offset;
    if (*offset < 0) { /* counts from the end of the stream */
        uint64_t end = find_files(directory, stream, 0).end, back = 0 - wanted;
        wanted = end > back ? end - back : 0;
    }
    struct span span = find_files(directory, stream, wanted);
    /* the offset may be behind the end of `before`, or its file dropped by now: then read from the next one */
    uint64_t files[2] = {span.before, span.after};
    ssize_t found = 0;
    for (int i = 0; i < 2 && found <= 0; i++) {
        if (files[i] == NOWHERE)
            continue;
        wanted = wanted < files[i] ? files[i] : wanted;
        name_file(name, stream, files[i]);
        int fd = open_file(directory, name);
        found = fd < 0 ? 0 : pread(fd, buffer, size, (off_t)(wanted - files[i]));
        if (fd >= 0)
            close(fd);
    }
    *offset = (int64_t)wanted;
    return found;
}
