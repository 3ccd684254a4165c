/* The resource limits of this process, which other processes of its user may change; and the mark of programs, which is
 * such a limit. */
#include "agent.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A program is marked by a lowered hard limit of RLIMIT_RTTIME. Children inherit it, and nothing inside can raise it
 * again: that takes CAP_SYS_RESOURCE, which no container of podkit's has. The limit itself matters to real-time
 * scheduling only, which a container does not get. */
#define MARK RLIMIT_RTTIME
#define MARK_LINE "Max realtime timeout"
#define MARKED ((rlim_t)1 << 62)

static struct rlimit limits[RLIM_NLIMITS];

void guard_limits(void)
{
    /* prlimit() compares the caller's uid with all three of the target's: with a different saved one, none matches */
    (void)syscall(SYS_setresuid, (uid_t)-1, (uid_t)-1, NOBODYS_UID);
}

void remember_limits(void)
{
    for (int i = 0; i < RLIM_NLIMITS; i++)
        getrlimit(i, &limits[i]);
}

int restore_limits(void)
{
    struct rlimit now;
    for (int i = 0; i < RLIM_NLIMITS; i++)
        if (getrlimit(i, &now) != 0 ||
            ((now.rlim_cur != limits[i].rlim_cur || now.rlim_max != limits[i].rlim_max) && setrlimit(i, &limits[i]) != 0))
            return 0;
    return 1;
}

void mark_as_program(void)
{
    struct rlimit mark;
    if (getrlimit(MARK, &mark) != 0 || mark.rlim_max < MARKED)
        return;
    mark.rlim_max = MARKED;
    mark.rlim_cur = mark.rlim_cur < MARKED ? mark.rlim_cur : MARKED;
    (void)setrlimit(MARK, &mark);
}

int is_unmarked(pid_t pid)
{
    char path[32], text[4096];
    snprintf(path, sizeof path, "/proc/%d/limits", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    text[size < 0 ? 0 : size] = '\0';
    char *at = strstr(text, MARK_LINE); /* the soft limit follows, then the hard one */
    if (!at)
        return 0;
    at += strlen(MARK_LINE);
    at += strspn(at, " ");
    at += strcspn(at, " ");
    at += strspn(at, " ");
    return strncmp(at, "unlimited", strlen("unlimited")) == 0;
}
