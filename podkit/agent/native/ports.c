/* Which TCP ports processes listen on: the sockets that /proc/PID/fd names, found again in /proc/net/tcp. */
#include "background.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LISTENERS_MAX 1024
#define OWNER_MS 500 /* how long a process that looks as another user may take */
#define LISTENING "0A"

static struct listener {
    unsigned long long inode;
    uint16_t port;
} listeners[LISTENERS_MAX];
static size_t listener_count;

/* Lines such as "0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 ...". */
static void read_listeners(const char *path)
{
    char line[512], *rest;
    FILE *file = fopen(path, "re");
    while (file && listener_count < LISTENERS_MAX && fgets(line, sizeof line, file)) {
        char *fields[10] = {strtok_r(line, " ", &rest)};
        size_t count = 1;
        while (count < 10 && (fields[count] = strtok_r(NULL, " ", &rest)))
            count++;
        char *port = count == 10 ? strchr(fields[1], ':') : NULL;
        if (port && strcmp(fields[3], LISTENING) == 0)
            listeners[listener_count++] =
                (struct listener){strtoull(fields[9], NULL, 10), (uint16_t)strtoul(port + 1, NULL, 16)};
    }
    if (file)
        fclose(file);
}

static size_t add(uint16_t *ports, size_t count, size_t room, uint16_t port)
{
    size_t at = 0;
    while (at < count && ports[at] < port)
        at++;
    if (count == room || (at < count && ports[at] == port))
        return count;
    memmove(ports + at + 1, ports + at, (count - at) * sizeof *ports);
    ports[at] = port;
    return count + 1;
}

/* Add the ports of one process; -1 where it may not be looked at. One that has ended has none. */
static int look_at(pid_t pid, uint16_t *ports, size_t count, size_t room)
{
    char path[32], link[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *entries = opendir(path);
    if (!entries)
        return errno == ENOENT || errno == ESRCH ? (int)count : -1;
    int may = 1;
    for (struct dirent *entry; (entry = readdir(entries));) {
        ssize_t size = readlinkat(dirfd(entries), entry->d_name, link, sizeof link - 1);
        may = may && (size >= 0 || errno != EACCES);
        link[size > 0 ? size : 0] = '\0';
        if (strncmp(link, "socket:[", 8) != 0)
            continue;
        unsigned long long inode = strtoull(link + 8, NULL, 10);
        for (size_t i = 0; i < listener_count; i++)
            if (listeners[i].inode == inode)
                count = add(ports, count, room, listeners[i].port);
    }
    closedir(entries);
    return may ? (int)count : -1;
}

/* The same as the user of that process: root without CAP_SYS_PTRACE may look only at its own. */
static int look_as_owner(pid_t pid, const struct stat *owner, uint16_t *ports, size_t count, size_t room)
{
    struct user user = {.uid = owner->st_uid, .gid = owner->st_gid};
    uint16_t found[256];
    int ends[2], status = 1;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    pid_t child = fork();
    if (child == 0) {
        int seen = become(&user) ? look_at(pid, found, 0, sizeof found / sizeof *found) : -1;
        if (seen > 0)
            (void)!write(ends[1], found, (size_t)seen * sizeof *found);
        _exit(seen < 0);
    }
    close(ends[1]);
    struct pollfd answer = {.fd = ends[0], .events = POLLIN};
    if (child > 0 && poll(&answer, 1, OWNER_MS) == 0)
        kill(child, SIGKILL); /* another process of that user has stopped it */
    ssize_t size = read(ends[0], found, sizeof found);
    close(ends[0]);
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        return -1;
    for (size_t i = 0; size > 0 && i < (size_t)size / sizeof *found; i++)
        count = add(ports, count, room, found[i]);
    return (int)count;
}

int find_ports(const pid_t *pids, size_t count, uint16_t *ports, size_t room)
{
    static int listed;
    int found = 0;
    if (count > 0 && !listed) {
        read_listeners("/proc/net/tcp");
        read_listeners("/proc/net/tcp6");
        listed = 1;
    }
    for (size_t i = 0; i < count && found >= 0; i++) {
        char path[32];
        struct stat owner;
        snprintf(path, sizeof path, "/proc/%d/fd", (int)pids[i]);
        if (stat(path, &owner) != 0)
            continue;
        found = owner.st_uid == geteuid() ? look_at(pids[i], ports, (size_t)found, room)
                                          : look_as_owner(pids[i], &owner, ports, (size_t)found, room);
    }
    return found;
}
