/* The keeper of one background process: its parent, and the parent of whatever that leaves behind. It has no channel,
 * so it outlives podkit; it writes down what is printed, and how it ends. */
#include "background.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KILL_MS 1000
#define PIPE_MOST (1u << 20) /* what a pipe can hold */

static struct keeper self;
static struct record *record;
static struct log logs[2];
static pid_t command;
static int command_status, command_ended;
static int64_t kill_at; /* 0: nobody has asked for its end */

static void on_signal(int number)
{
    (void)number;
}

static int64_t wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void save(enum record_state state)
{
    (void)!pwrite(self.record, (char *)record + sizeof record->state, sizeof *record - sizeof record->state,
                  sizeof record->state);
    record->state = state;
    (void)!pwrite(self.record, &record->state, sizeof record->state, 0);
}

/* --- orders ---------------------------------------------------------------------------------------------------------- */

static void stop(uint32_t milliseconds)
{
    int64_t end = now_ms() + milliseconds;
    if (milliseconds > 0 && !kill_at) {
        signal_descendants(SIGTERM);
        signal_descendants(SIGCONT); /* one that is stopped could not end */
    }
    if (!kill_at || end < kill_at)
        kill_at = end;
}

static void obey(void)
{
    struct order order;
    struct timeval patience = {.tv_usec = 100000};
    int client = accept4(self.control, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0)
        return;
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (recv(client, &order, sizeof order, 0) == (ssize_t)sizeof order) {
        if (order.kind == ORDER_STOP) {
            stop(order.value);
            return; /* the connection ends with this process */
        }
        if (order.kind == ORDER_SIGNAL && !command_ended && kill(-command, (int)order.value) != 0)
            kill(command, (int)order.value);
        if (order.kind == ORDER_CLOSE_INPUT && self.input[1] >= 0) {
            close(self.input[1]);
            self.input[1] = -1;
        }
        send(client, &order, sizeof order, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    close(client);
}

/* --- its life -------------------------------------------------------------------------------------------------------- */

static int reap(void)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == command && !command_ended) {
            command_status = status;
            command_ended = 1;
        }
    return pid == 0 || errno != ECHILD;
}

static void note_end(void)
{
    int bytes;
    for (int i = 0; i < 2; i++) /* who reads that it has ended finds all that it printed */
        if (logs[i].pipe >= 0 && ioctl(logs[i].pipe, FIONREAD, &bytes) == 0 && bytes > 0)
            drain_log(&logs[i], (size_t)bytes);
    record->exit_code = WIFSIGNALED(command_status) ? 128 + (uint32_t)WTERMSIG(command_status)
                                                    : (uint32_t)WEXITSTATUS(command_status);
    record->ended_ms = wall_ms();
    save(RECORD_ENDED);
}

/* Give back the memory of a long command: its texts lie one after the other, in what was forked from the channel. */
static void drop_texts(const struct request *request)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)*request->arguments, end = begin;
    for (char **argument = request->arguments; *argument; argument++)
        end = (uintptr_t)*argument + strlen(*argument);
    for (size_t i = 0; i < request->start.variables; i++)
        end = (uintptr_t)request->variables[i] + strlen(request->variables[i]);
    begin = (begin + page - 1) / page * page;
    end = end / page * page;
    if (end > begin)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}

static void start(const struct request *request)
{
    int out[2], err[2];
    struct report report = {.kind = REPORT_FAILED, .value = NO_PROCESS};
    if (pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0) {
        if (self.input[0] >= 0)
            dup2(self.input[0], 0);
        dup2(out[1], 1);
        dup2(err[1], 2);
        report.value = start_command(request, &command);
    }
    if (report.value) {
        report.detail = errno;
        (void)!write(self.report, &report, sizeof report);
        _exit(1);
    }
    int passed[] = {0, 1, 2, out[1], err[1], self.input[0]};
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++)
        if (passed[i] >= 0)
            close(passed[i]);
    open_log(&logs[0], self.directory, 1, out[0]);
    open_log(&logs[1], self.directory, 2, err[0]);
    record->pid = (uint32_t)command;
    record->keeper = (uint32_t)getpid();
    record->began_ms = wall_ms();
    save(RECORD_BEGUN);
    report.kind = REPORT_STARTED;
    (void)!write(self.report, &report, sizeof report);
    close(self.report);
    (void)!chdir("/");
    drop_texts(request);
}

static void look_around(const sigset_t *open_mask)
{
    struct pollfd ready[] = {
        {.fd = self.control, .events = POLLIN},
        {.fd = logs[0].pipe, .events = POLLIN},
        {.fd = logs[1].pipe, .events = POLLIN},
    };
    int64_t left = kill_at ? kill_at - now_ms() : 0;
    left = left < 0 ? 0 : left;
    struct timespec wait = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
    if (ppoll(ready, 3, kill_at ? &wait : NULL, open_mask) <= 0)
        return;
    if (ready[0].revents)
        obey();
    for (int i = 0; i < 2; i++)
        if (ready[i + 1].revents)
            drain_log(&logs[i], LOG_BUFFER);
}

_Noreturn void keep(const struct request *request, const struct keeper *own, struct record *begun)
{
    sigset_t all, all_but_child;
    self = *own;
    record = begun;
    setsid();
    prctl(PR_SET_NAME, KEEPER_NAME);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    sigfillset(&all); /* a process that signals every process of its user does not end what watches it */
    sigprocmask(SIG_SETMASK, &all, NULL);
    all_but_child = all;
    sigdelset(&all_but_child, SIGCHLD);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGCHLD, &action, NULL);
    start(request);
    while (reap()) {
        if (command_ended && record->state == RECORD_BEGUN)
            note_end();
        if (kill_at && kill_at <= now_ms()) {
            if (kill_descendants(KILL_MS, reap))
                break;
            kill_at = now_ms() + KILL_MS; /* and again */
        }
        look_around(&all_but_child);
    }
    if (record->state == RECORD_BEGUN)
        note_end();
    for (int i = 0; i < 2; i++)
        drain_log(&logs[i], PIPE_MOST);
    save(RECORD_FINISHED); /* before the lock is gone: else it would seem to have been killed */
    unlinkat(self.directory, "control", 0);
    unlinkat(self.directory, "input", 0);
    _exit(0);
}

/* --- from outside ---------------------------------------------------------------------------------------------------- */

struct sockaddr_un control_of(int directory)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/control", directory);
    return address;
}

/* Connect to a keeper; -1 where it has ended, -2 where it lives and takes no more connections. */
static int connect_keeper(int directory)
{
    struct sockaddr_un address = control_of(directory);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -2;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    int busy = errno == EAGAIN;
    close(fd);
    return busy ? -2 : -1;
}

int read_record(int directory, struct record *found, int *is_kept)
{
    struct record whole;
    int fd = open_file(directory, "record");
    /* first: what is written last is the end */
    *is_kept = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    int read = fd >= 0 && pread(fd, &whole, sizeof whole, 0) == sizeof whole;
    if (read)
        *found = whole;
    if (fd >= 0)
        close(fd);
    return read;
}

int is_kept(int directory)
{
    struct record record;
    int kept;
    (void)read_record(directory, &record, &kept);
    return kept;
}

void wake_keeper(const struct record *found)
{
    if (found->keeper > 1)
        kill((pid_t)found->keeper, SIGCONT);
}

int tell_keeper(int directory, int kind, uint32_t value, int64_t patience_ms)
{
    struct order order = {.kind = kind, .value = value};
    struct record found;
    int kept, fd = connect_keeper(directory);
    if (fd == -1)
        return 1; /* nobody is left to be told, and nothing to be done */
    if (read_record(directory, &found, &kept))
        wake_keeper(&found);
    struct pollfd answer = {.fd = fd, .events = POLLIN};
    int patience = patience_ms > 1 << 30 ? 1 << 30 : (int)patience_ms;
    int done = fd >= 0 && send(fd, &order, sizeof order, MSG_NOSIGNAL) == (ssize_t)sizeof order &&
               poll(&answer, 1, patience) > 0;
    if (fd >= 0)
        close(fd);
    return done;
}
