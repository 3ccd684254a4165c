/* The resource limits of this process, which others of the same user may change, and the mark of programs, which is one. */
#include "agent.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of processor time without a pause, for those that the kernel schedules in real time, which a container has none of. A
 * limit that was lowered stays so: raising it takes a capability that no container of podkit's has. */
#define MARK RLIMIT_RTTIME
#define MARK_LINE "Max realtime timeout"
#define MARKED ((rlim_t)1 << 62)

static struct rlimit limits[RLIM_NLIMITS];

void guard_limits(void)
{
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
    char *at = strstr(text, MARK_LINE); /* the soft limit comes next, and then the hard one */
    if (!at)
        return 0;
    at += strlen(MARK_LINE);
    at += strspn(at, " ");
    at += strcspn(at, " ");
    at += strspn(at, " ");
    return strncmp(at, "unlimited", strlen("unlimited")) == 0;
}
