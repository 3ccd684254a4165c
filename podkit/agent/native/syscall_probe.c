/* Finds system calls that the agent is not allowed to make, because of a seccomp profile or a sandbox with another
 * kernel. A channel checks this before HELLO, so that the host can work without it: a channel that works only in
 * part would leave commands running. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Return the error if the call itself is forbidden; 0 if it succeeded or failed for its arguments. */
static int refusal(long result)
{
    return result < 0 && (errno == EPERM || errno == EACCES || errno == ENOSYS) ? errno : 0;
}

/* Each call's arguments make it harmless, and most are invalid: any error other than a refusal is fine. */
const char *find_forbidden(void)
{
    char byte;
    int bytes, pair[2];
    struct timespec none = {0};
    struct epoll_event event = {0};
    sigset_t mask;
    const struct {
        const char *name;
        int error;
    } calls[] = {
        {"epoll_ctl", refusal(epoll_ctl(-1, EPOLL_CTL_ADD, -1, &event))},
        {"epoll_wait", refusal(epoll_wait(-1, &event, 1, 0))},
        {"poll", refusal(poll(NULL, 0, 0))},
        {"ppoll", refusal(ppoll(NULL, 0, &none, NULL))},
        {"pipe2", refusal(pipe2(pair, -1))},
        {"socketpair", refusal(socketpair(-1, -1, -1, pair))},
        {"recvfrom", refusal(recv(-1, &byte, 1, 0))},
        {"sendto", refusal(send(-1, &byte, 1, 0))},
        {"wait4", refusal(waitpid(-1, NULL, -1))},
        {"kill", refusal(kill(getpid(), 0))},
        {"rt_sigprocmask", refusal(sigprocmask(SIG_BLOCK, NULL, &mask))},
        {"fcntl", refusal(fcntl(-1, F_GETFL))},
        {"ioctl", refusal(ioctl(-1, FIONREAD, &bytes))},
        {"dup2", refusal(dup2(-1, 0))},
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if ((errno = calls[i].error) != 0)
            return calls[i].name;
    return NULL;
}
