/* The TCP ports that processes listen on: sockets in /proc/PID/fd, matched by inode with all listeners. */
#include "background.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LISTENERS_MAX 1024
#define SOCKETS_MAX 4096 /* of one process */
#define LOOK_MS 500  /* for all processes of one call */
#define OWNER_MS 500 /* for look_as_owner() to look at one process */
#define LISTENING "0A" /* TCP_LISTEN, as /proc/net/tcp shows it */

static struct listener {
    unsigned long long inode;
    uint16_t port;
} listeners[LISTENERS_MAX];
static size_t listener_count;
static int too_many; /* there are more listeners than fit, so no answer would be complete */

static void note_listener(unsigned long long inode, uint16_t port)
{
    if (listener_count < LISTENERS_MAX)
        listeners[listener_count++] = (struct listener){inode, port};
    else
        too_many = 1;
}

/* Return whether the time for this call is over. It begins with the first question. */
static int is_late(void)
{
    static int64_t end;
    if (!end)
        end = now_ms() + LOOK_MS;
    return now_ms() > end;
}

/* Ask the kernel over netlink for the listening sockets of a family. Return whether it has answered in full. */
static int ask_for_listeners(uint8_t family)
{
    static char answer[32 << 10];
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 body;
    } request = {
        .header = {.nlmsg_len = sizeof request, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .body = {.sdiag_family = family, .sdiag_protocol = IPPROTO_TCP, .idiag_states = 1u << TCP_LISTEN},
    };
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG), done = 0;
    ssize_t size = fd < 0 ? -1 : send(fd, &request, sizeof request, 0);
    while (size > 0 && !done && (size = recv(fd, answer, sizeof answer, 0)) > 0) {
        int left = (int)size;
        for (struct nlmsghdr *at = (void *)answer; !done && NLMSG_OK(at, (uint32_t)left); at = NLMSG_NEXT(at, left)) {
            struct inet_diag_msg *found = NLMSG_DATA(at);
            done = at->nlmsg_type == NLMSG_DONE;
            if (at->nlmsg_type == NLMSG_ERROR)
                size = 0;
            else if (!done && at->nlmsg_len >= NLMSG_LENGTH(sizeof *found))
                note_listener(found->idiag_inode, ntohs(found->id.idiag_sport));
        }
    }
    if (fd >= 0)
        close(fd);
    return done;
}

/* Read the listening sockets from /proc/net/tcp or tcp6. A line:
 * "0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 ...". */
static void read_listeners(const char *path)
{
    char line[512], *rest;
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        char *fields[10] = {strtok_r(line, " ", &rest)};
        size_t count = 1;
        while (count < 10 && (fields[count] = strtok_r(NULL, " ", &rest)))
            count++;
        char *port = count == 10 ? strchr(fields[1], ':') : NULL;
        if (port && strcmp(fields[3], LISTENING) == 0)
            note_listener(strtoull(fields[9], NULL, 10), (uint16_t)strtoul(port + 1, NULL, 16));
    }
    if (file)
        fclose(file);
}

/* Find all listeners of the container, once. The files are a fallback: the kernel takes milliseconds to write them. */
static void find_listeners(void)
{
    static int found;
    if (found)
        return;
    found = 1;
    if (!ask_for_listeners(AF_INET))
        read_listeners("/proc/net/tcp");
    if (!ask_for_listeners(AF_INET6))
        read_listeners("/proc/net/tcp6");
}

/* Insert a port into the sorted list, unless it is there or the list is full. Return the new count. */
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

/* Collect the inodes of one process's sockets. Return how many: 0 if it has ended, -1 if not all of them can be
 * read. */
static int look_at(pid_t pid, unsigned long long *inodes, size_t room)
{
    char path[32], link[64];
    size_t count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *entries = opendir(path);
    if (!entries)
        return errno == ENOENT || errno == ESRCH ? 0 : -1;
    int may = 1;
    for (struct dirent *entry; may && (entry = readdir(entries));) {
        ssize_t size = readlinkat(dirfd(entries), entry->d_name, link, sizeof link - 1);
        may = (size >= 0 || errno != EACCES) && count < room && !is_late();
        link[size > 0 ? size : 0] = '\0';
        if (strncmp(link, "socket:[", 8) == 0)
            inodes[count++] = strtoull(link + 8, NULL, 10);
    }
    closedir(entries);
    return may ? (int)count : -1;
}

/* Do the same in a child that becomes the process's user: without CAP_SYS_PTRACE, even root may only look at
 * processes of its own user. */
static int look_as_owner(pid_t pid, const struct stat *owner, unsigned long long *inodes, size_t room)
{
    struct user user = {.uid = owner->st_uid, .gid = owner->st_gid};
    int ends[2], status = 1;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    pid_t child = fork();
    if (child == 0) {
        int seen = become(&user, user.uid) ? look_at(pid, inodes, room) : -1;
        if (seen > 0)
            (void)!write(ends[1], inodes, (size_t)seen * sizeof *inodes);
        _exit(seen < 0);
    }
    close(ends[1]);
    struct pollfd answer = {.fd = ends[0], .events = POLLIN};
    size_t size = 0;
    for (ssize_t got = 1; got > 0; size += got > 0 ? (size_t)got : 0) {
        if (child > 0 && poll(&answer, 1, OWNER_MS) == 0)
            kill(child, SIGKILL); /* another process of that user may have stopped it */
        got = read(ends[0], (char *)inodes + size, room * sizeof *inodes - size);
    }
    close(ends[0]);
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        return -1;
    return (int)(size / sizeof *inodes);
}

int find_ports(const pid_t *pids, size_t count, uint16_t *ports, size_t room)
{
    static unsigned long long inodes[SOCKETS_MAX];
    size_t found = 0;
    if (count > 0)
        find_listeners();
    for (size_t i = 0; i < count && listener_count > 0; i++) { /* in most containers, nobody listens at all */
        char path[32];
        struct stat owner;
        snprintf(path, sizeof path, "/proc/%d/fd", (int)pids[i]);
        if (stat(path, &owner) != 0)
            continue;
        int sockets = owner.st_uid == geteuid() ? look_at(pids[i], inodes, SOCKETS_MAX)
                                                : look_as_owner(pids[i], &owner, inodes, SOCKETS_MAX);
        if (sockets < 0 || too_many || is_late())
            return -1;
        for (int j = 0; j < sockets; j++)
            for (size_t k = 0; k < listener_count; k++)
                if (listeners[k].inode == inodes[j])
                    found = add(ports, found, room, listeners[k].port);
    }
    return (int)found;
}
