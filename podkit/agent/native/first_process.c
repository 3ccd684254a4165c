/* The container's first process: reaps whatever is orphaned, ends at once on SIGTERM, and at the end of the lifetime.
 *
 * A channel that is open keeps the lifetime itself, because only it can decide in one step between the end and a
 * command that comes just now. So a channel tells this process that it is there (LIFE_HELD), and goes with LIFE_OVER
 * once a lifetime has passed without a command. Anybody inside may say so in its name: it counts once the channel has
 * gone. A channel that is simply gone begins a new lifetime. One that may not send signals to this process, such as
 * root's without a capability, is found at the end of the lifetime. So is the keeper of a background process: as long
 * as there is one, the lifetime does not end, and it begins anew with its end.
 *
 * Where it has a pipe to read, one channel is its child, behind its own standard streams. And as nothing inside can stop
 * this process, it ends what supervisors leave that somebody kills or keeps from their work, once their channel has gone.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HOLDERS 256
#define LOOK_MS 2000 /* how often the holders are looked at */
#define LOST_LOOK_MS 200 /* and what channels that have gone left behind */
#define GRACE_MS 3000 /* more than a supervisor needs to end its command */
#define STOPS_MAX 3
#define LEAVE_MS 1000 /* a channel that says that it goes has gone by then */
#define LEAVING_LOOK_MS 10
#define LATEST_MS 1000 /* after the end of the lifetime, whatever signals come */

static struct holder {
    pid_t pid, session;
    int stops; /* how often it was found stopped */
    int64_t leaving; /* since when it is said to go; 0: it is not */
    int was_slandered; /* that was said, and it did not go: it counts no more, or it could keep this one from being looked at */
} holders[HOLDERS];
static size_t holder_count;
static pid_t lost[HOLDERS]; /* the sessions of channels that have gone, where supervisors may be left */
static size_t lost_count;
static int64_t lost_end; /* until when these have to be gone too */
static pid_t own_channel; /* the one behind this process's own standard streams */

/* Whether this is a channel at work. One that somebody has stopped holds nothing, because it could not notice that its
 * host is gone; it is told to go on, and says then that it is there. */
static int is_at_work(pid_t pid)
{
    struct process process;
    if (read_process(pid, &process) != 0 || !is_channel(&process))
        return 0;
    if (process.state == 'T')
        kill(pid, SIGCONT);
    return !strchr("ZTtX", process.state);
}

static void hold(pid_t pid)
{
    if (holder_count < HOLDERS)
        holders[holder_count++] = (struct holder){.pid = pid, .session = getsid(pid)};
}

static void adopt_channels(void)
{
    pid_t found[HOLDERS];
    size_t count = find_named(CHANNEL_NAME, found, HOLDERS);
    for (size_t i = 0; i < count; i++)
        if (is_at_work(found[i]))
            hold(found[i]);
}

static void drop_holder(size_t index)
{
    holders[index] = holders[--holder_count];
}

static void lose(pid_t session)
{
    for (size_t i = 0; i < lost_count; i++)
        if (lost[i] == session) /* its end is heard of and seen */
            return;
    if (lost_count < HOLDERS)
        lost[lost_count++] = session;
    lost_end = now_ms() + GRACE_MS;
}

/* Whether a channel has gone without saying that its time is over. One that is stopped again and again is ended: it could
 * neither notice that its host is gone, nor let its supervisors notice. */
static int holders_vanished(void)
{
    int vanished = 0;
    for (size_t i = holder_count; i-- > 0;) {
        struct process process;
        if (holders[i].leaving)
            continue;
        int is_there = read_process(holders[i].pid, &process) == 0 && is_channel(&process);
        if (is_there && process.state == 'T' && ++holders[i].stops < STOPS_MAX) {
            kill(holders[i].pid, SIGCONT);
        } else if (!is_there || strchr("ZTtX", process.state)) {
            if (is_there)
                kill(holders[i].pid, SIGKILL);
            lose(holders[i].session);
            drop_holder(i);
            vanished = 1;
        }
    }
    return vanished;
}

/* A supervisor ends its command when its channel has gone, and then itself. One that somebody inside keeps from that, for
 * ever stopped or with its limits lowered, would leave the command alive, and nobody would know: so all that is left is
 * ended. Nothing inside can stop this process. */
static void end_the_lost(void)
{
    struct table table = {0};
    size_t left = 0;
    int seen = scan(&table) == 0;
    for (size_t i = 0; i < table.count; i++)
        for (size_t j = 0; j < lost_count; j++)
            if (table.rows[i].session == lost[j] && table.rows[i].parent == 1 && table.rows[i].pid != own_channel &&
                table.rows[i].state != 'Z') {
                left++;
                kill(table.rows[i].pid, SIGCONT);
            }
    free(table.rows);
    if ((left || !seen) && now_ms() >= lost_end && getpid() == 1)
        kill(-1, SIGKILL);
    else if (left || !seen)
        return;
    lost_count = 0;
}

/* Let go of the channels that have said that their time is over, and have gone; whether one is still awaited. */
static int see_off(void)
{
    int awaited = 0;
    for (size_t i = holder_count; i-- > 0;) {
        struct process process;
        if (!holders[i].leaving)
            continue;
        if (read_process(holders[i].pid, &process) != 0 || !is_channel(&process) || strchr("ZX", process.state)) {
            lose(holders[i].session);
            drop_holder(i);
        } else if (now_ms() - holders[i].leaving > LEAVE_MS) {
            holders[i].leaving = 0; /* somebody else has said it */
            holders[i].was_slandered = 1;
        } else {
            awaited = 1;
        }
    }
    return awaited;
}

/* Whether the lifetime begins anew. */
static int take_note(const siginfo_t *info)
{
    pid_t pid = info->si_pid; /* anybody inside may claim to be this process: so nothing counts twice */
    size_t i = 0;
    while (i < holder_count && holders[i].pid != pid)
        i++;
    if (info->si_code == SI_QUEUE && info->si_value.sival_int == LIFE_OVER && i < holder_count && !holders[i].leaving &&
        !holders[i].was_slandered)
        holders[i].leaving = now_ms();
    if (info->si_code != SI_QUEUE || info->si_value.sival_int != LIFE_HELD || i < holder_count || !is_at_work(pid))
        return 0;
    hold(pid);
    return 1;
}

/* Tell the host how the channel has ended: the engine lets the streams themselves end with this process only. Nobody else
 * inside can write there. */
static void tell_end(int code)
{
    char text[16];
    (void)!write(2, text, (size_t)snprintf(text, sizeof text, "%d\n", code));
}

/* Where the engine gave this process a pipe to read, a host may be at its other end. */
static void open_own_channel(const char *text)
{
    struct stat about;
    if (getpid() != 1 || fstat(0, &about) != 0 || !S_ISFIFO(about.st_mode))
        return;
    own_channel = fork();
    if (own_channel == 0) {
        dup2(0, 2); /* something that cannot be written to */
        (void)!chdir("/");
        _exit(channel_main(text, 1, NULL));
    }
    close(0);
    close(1);
    if (own_channel < 0)
        tell_end(71);
}

/* Whether a process that has ended was a supervisor: only these and the channels are in a channel's session. */
static int was_supervisor(pid_t pid)
{
    struct process process;
    if (read_process(pid, &process) != 0 || process.session == getsid(0))
        return 1; /* where nothing can be known, the worst is taken to be true */
    for (size_t i = 0; i < holder_count; i++)
        if (holders[i].session == process.session)
            return 1;
    for (size_t i = 0; i < lost_count; i++)
        if (lost[i] == process.session)
            return 1;
    return 0;
}

/* Whether the lifetime begins anew: a background process has ended. */
static int reap(void)
{
    int status, forsaken = 0, renewed = 0; /* forsaken: a command may live on that nobody watches any more */
    siginfo_t ended = {0};
    while (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid > 0) {
        pid_t pid = ended.si_pid;
        /* a supervisor comes here once its channel has gone, and ends with 0 when nothing of its command is left */
        if (pid != own_channel && (ended.si_code != CLD_EXITED || ended.si_status != 0) && was_supervisor(pid))
            forsaken = 1;
        renewed |= is_keeper(pid);
        if (waitpid(pid, &status, 0) == pid && pid == own_channel) {
            own_channel = 0;
            lose(getsid(0));
            tell_end(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
        }
        ended.si_pid = 0;
    }
    if (forsaken && getpid() == 1)
        kill(-1, SIGKILL);
    return renewed;
}

/* Whether a signal comes from outside of the container: then its sender has no number here. */
static int is_from_outside(const siginfo_t *info)
{
    return getpid() != 1 || info->si_code == SI_KERNEL || (info->si_code == SI_USER && info->si_pid == 0);
}

int sleep_main(const char *text)
{
    int64_t lifetime = parse_lifetime(text);
    if (lifetime < 0)
        return 64;
    prctl(PR_SET_DUMPABLE, 0);
    guard_limits();
    const int signals[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGCHLD, LIFE_SIGNAL};
    sigset_t wanted; /* all others do nothing to a container's first process */
    sigemptyset(&wanted);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaddset(&wanted, signals[i]);
    sigprocmask(SIG_BLOCK, &wanted, NULL);
    open_own_channel(text);
    int64_t end = now_ms() + lifetime, looked = now_ms();
    for (;;) {
        int awaited = see_off();
        int64_t wait = awaited        ? LEAVING_LOOK_MS
                       : lost_count   ? LOST_LOOK_MS
                       : holder_count ? LOOK_MS
                       : lifetime     ? end - now_ms()
                                      : 3600000;
        if (wait < 0)
            wait = 0;
        struct timespec timeout = {.tv_sec = wait / 1000, .tv_nsec = wait % 1000 * 1000000};
        siginfo_t info;
        int number = sigtimedwait(&wanted, &info, &timeout), none = number < 0 && errno == EAGAIN;
        if (number < 0 && errno != EAGAIN && errno != EINTR)
            poll(NULL, 0, LATEST_MS); /* a filter of system calls forbids it: then signals are not heard */
        if ((number == SIGTERM || number == SIGINT || number == SIGQUIT || number == SIGHUP) && is_from_outside(&info))
            return 128 + number;
        if (number == SIGCHLD && reap())
            end = now_ms() + lifetime;
        if (number == LIFE_SIGNAL && take_note(&info))
            end = now_ms() + lifetime;
        if (lost_count && (none || now_ms() >= lost_end))
            end_the_lost();
        /* not before every signal was heard: a channel that says that it goes, goes at once */
        if (holder_count && ((none && now_ms() - looked >= LOOK_MS) || now_ms() - looked > LOOK_MS + LATEST_MS)) {
            looked = now_ms();
            if (holders_vanished())
                end = now_ms() + lifetime;
        }
        /* every signal that was sent by now is looked at before the end, unless somebody sends them without an end */
        if (lifetime && !holder_count && now_ms() >= end + (none ? 0 : LATEST_MS)) {
            adopt_channels();
            if (is_anything_kept())
                end = now_ms() + lifetime;
            else if (!holder_count)
                return 0;
        }
    }
}
