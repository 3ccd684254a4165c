/* The container's first process: reaps orphans, ends at once on SIGTERM, and ends when the lifetime is over.
 *
 * An open channel keeps the lifetime itself. Only the channel can decide atomically between the end and a command
 * that arrives at the same moment. It tells this process that it is there (LIFE_HELD). After a lifetime without a
 * command it sends LIFE_OVER and exits. Any process inside can forge that, so LIFE_OVER counts only once the channel
 * is gone. If a channel ends without it, a new lifetime begins.
 *
 * Some channels may not signal this process, such as root's without CAP_KILL. The scan at the end of the lifetime
 * finds them. It also finds the keepers of background processes: the lifetime does not end before the last keeper
 * does, and then a new one begins.
 *
 * If standard input is a pipe, this process forks a channel that uses its standard streams.
 *
 * A process inside may kill or stop supervisors, and then their commands would run on unwatched. The kernel protects
 * the first process from signals from inside, so this is the one place that can clean up after them.
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
#define LOOK_MS 2000       /* between two looks at the holders */
#define LOST_LOOK_MS 200   /* between two looks for supervisors whose channel is gone */
#define GRACE_MS 3000      /* from a channel's end until its supervisors have killed their commands; they need less */
#define STOPS_MAX 3        /* looks at which a channel may be found stopped before it is killed */
#define LEAVE_MS 1000      /* from LIFE_OVER to the channel's exit */
#define LEAVING_LOOK_MS 10 /* between two looks at a channel that has sent LIFE_OVER */
#define LATEST_MS 1000     /* the longest that a flood of signals can delay a decision */

/* The channels that hold the lifetime. */
static struct holder {
    pid_t pid, session;
    int stops;         /* how often it was found stopped */
    int64_t leaving;   /* when LIFE_OVER came; 0: it has not */
    int was_slandered; /* LIFE_OVER was forged; later ones are ignored, because a leaving channel is not checked */
} holders[HOLDERS];
static size_t holder_count;
static pid_t lost[HOLDERS]; /* the sessions of channels that are gone; supervisors may be left in them */
static size_t lost_count;
static int64_t lost_end;  /* when those supervisors have to be gone, too */
static pid_t own_channel; /* the channel that uses this process's standard streams; 0: none */

/* Return whether this is a channel at work. A stopped channel holds nothing, because it cannot notice that its host is
 * gone. It gets SIGCONT, and then sends LIFE_HELD again. */
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

/* Find the channels that could not send LIFE_HELD. */
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

/* Remember the session of a channel that is gone, so that end_the_lost() looks for its supervisors. */
static void lose(pid_t session)
{
    for (size_t i = 0; i < lost_count; i++)
        if (lost[i] == session) /* reap() and the looks at holders both notice the end of the own channel */
            return;
    if (lost_count < HOLDERS)
        lost[lost_count++] = session;
    lost_end = now_ms() + GRACE_MS;
}

/* Drop the holders that are gone without LIFE_OVER; return whether there was one. A channel that is found stopped again
 * and again is killed: neither it nor its supervisors could notice that its host is gone. */
static int holders_vanished(void)
{
    int vanished = 0;
    for (size_t i = holder_count; i-- > 0;) { /* backwards, because drop_holder() moves the last one */
        struct process process;
        if (holders[i].leaving) /* see_off() handles these */
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

/* Look for supervisors whose channel is gone. If any are left after GRACE_MS, kill everything in the container.
 *
 * A supervisor without a channel kills its command and exits. A process inside could prevent that by stopping it again
 * and again or by lowering its limits, and the command would run on unnoticed. */
static void end_the_lost(void)
{
    struct table table = {0};
    size_t left = 0;
    int seen = scan(&table) == 0; /* without a look, assume that some are left */
    /* supervisors are reparented to this process, and stay in their channel's session */
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

/* Drop the holders that have sent LIFE_OVER and are gone. Return whether one of them is still there. */
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
            holders[i].leaving = 0; /* another process has sent LIFE_OVER in its name */
            holders[i].was_slandered = 1;
        } else {
            awaited = 1;
        }
    }
    return awaited;
}

/* Handle LIFE_SIGNAL. Return whether a new lifetime begins.
 *
 * Any process inside can send it with the si_pid of a channel. So each message counts once per channel, and is checked
 * against /proc: LIFE_HELD here, LIFE_OVER in see_off(). */
static int take_note(const siginfo_t *info)
{
    pid_t pid = info->si_pid;
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

/* Tell the host how its channel has ended. The engine closes the streams only when this process ends, so the exit
 * code goes to standard error, where no other process can write. */
static void tell_end(int code)
{
    char text[16];
    (void)!write(2, text, (size_t)snprintf(text, sizeof text, "%d\n", code));
}

/* Fork the own channel if standard input is a pipe: then a host may be at its other end. */
static void open_own_channel(const char *text)
{
    struct stat about;
    if (getpid() != 1 || fstat(0, &about) != 0 || !S_ISFIFO(about.st_mode))
        return;
    own_channel = fork();
    if (own_channel == 0) {
        dup2(0, 2); /* a pipe's read end: nothing inside can write to the real standard error, see tell_end() */
        (void)!chdir("/");
        _exit(channel_main(text, 1, NULL));
    }
    close(0); /* the channel alone uses the host's pipes; standard error stays open for tell_end() */
    close(1);
    if (own_channel < 0)
        tell_end(71);
}

/* Return whether a zombie was a supervisor: only supervisors and channels are in a channel's session. */
static int was_supervisor(pid_t pid)
{
    struct process process;
    if (read_process(pid, &process) != 0 || process.session == getsid(0))
        return 1; /* if it cannot be known, assume the worst */
    for (size_t i = 0; i < holder_count; i++)
        if (holders[i].session == process.session)
            return 1;
    for (size_t i = 0; i < lost_count; i++)
        if (lost[i] == process.session)
            return 1;
    return 0;
}

/* Reap all zombies. Return whether a new lifetime begins, because a background process has ended.
 *
 * If a supervisor was killed, its command may live on unwatched, and cannot be told from other orphans any more. So
 * everything in the container is killed. */
static int reap(void)
{
    int status, forsaken = 0, renewed = 0;
    siginfo_t ended = {0};
    /* WNOWAIT: look at the zombie in /proc before it is reaped */
    while (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid > 0) {
        pid_t pid = ended.si_pid;
        /* a supervisor is a child of this process once its channel is gone; status 0: its tree is dead */
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

/* Return whether a signal was sent from outside the container: such a sender has no pid in here. */
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
    sigset_t wanted; /* the kernel drops all other signals to a container's first process */
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
        /* none: no signal is pending, so everything sent by now has been handled */
        int number = sigtimedwait(&wanted, &info, &timeout), none = number < 0 && errno == EAGAIN;
        if (number < 0 && errno != EAGAIN && errno != EINTR)
            poll(NULL, 0, LATEST_MS); /* a seccomp profile forbids the call, and no signal is heard: do not spin */
        if ((number == SIGTERM || number == SIGINT || number == SIGQUIT || number == SIGHUP) && is_from_outside(&info))
            return 128 + number;
        if (number == SIGCHLD && reap())
            end = now_ms() + lifetime;
        if (number == LIFE_SIGNAL && take_note(&info))
            end = now_ms() + lifetime;
        if (lost_count && (none || now_ms() >= lost_end))
            end_the_lost();
        /* Handle pending signals first: a channel exits right after LIFE_OVER, and would seem to have vanished. A
         * flood of signals delays this by LATEST_MS at most. */
        if (holder_count && ((none && now_ms() - looked >= LOOK_MS) || now_ms() - looked > LOOK_MS + LATEST_MS)) {
            looked = now_ms();
            if (holders_vanished())
                end = now_ms() + lifetime;
        }
        /* Handle pending signals before the end, too: one may be LIFE_HELD. */
        if (lifetime && !holder_count && now_ms() >= end + (none ? 0 : LATEST_MS)) {
            adopt_channels();
            if (is_anything_kept())
                end = now_ms() + lifetime;
            else if (!holder_count)
                return 0;
        }
    }
}
