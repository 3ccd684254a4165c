/* The keeper of one background process: its parent, and a subreaper for the descendants that it leaves behind.
 *
 * A keeper has no channel, so it outlives podkit. It writes the process's output to logs and its end to the record,
 * and takes orders on a socket.
 */
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
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KILL_MS 1000
#define STOPS_MAX 64 /* callers of stop that wait for the end, each with an open connection */
#define DEAF_MS 5000 /* between two looks once both output pipes are closed and cannot signal an end */
#define PIPE_MOST (1u << 20) /* the most that a pipe can hold */

static struct keeper self;
static struct record *record;
static struct log logs[2];
static pid_t command;
static int command_status, command_ended;
static int64_t kill_at; /* when to kill the tree; 0: no stop was ordered */
static int stops;       /* how many stops were ordered */

static struct stat control; /* the file of its socket, see is_out_of_reach() */

static volatile sig_atomic_t was_poked; /* SIGCHLD came: a child has ended, or poke_keepers() has sent it */

static void on_signal(int number)
{
    (void)number;
    was_poked = 1;
}

static int64_t wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Write the record. The state comes last, so that a reader who sees the new state finds the rest up to date. */
static void save(enum record_state state)
{
    (void)!pwrite(self.record, (char *)record + sizeof record->state, sizeof *record - sizeof record->state,
                  sizeof record->state);
    record->state = state;
    (void)!pwrite(self.record, &record->state, sizeof record->state, 0);
}

/* --- orders ------------------------------------------------------------------------------------------------------- */

/* Order the end of everything: SIGTERM now, and SIGKILL later. Of several orders, the earliest SIGKILL wins. */
static void stop(uint32_t milliseconds)
{
    int64_t end = now_ms() + milliseconds;
    if (milliseconds > 0 && !kill_at) {
        signal_descendants(SIGTERM);
        signal_descendants(SIGCONT); /* a stopped process would not handle SIGTERM */
    }
    if (!kill_at || end < kill_at)
        kill_at = end;
}

/* Return whether a name in the directory still is this file. */
static int is_same(const struct stat *own, int directory, const char *name)
{
    struct stat found;
    return fstatat(directory, name, &found, AT_SYMLINK_NOFOLLOW) == 0 && found.st_ino == own->st_ino &&
           found.st_dev == own->st_dev;
}

/* Return whether another process has removed or replaced the directory, or the socket or record in it. Nobody could
 * find or stop the background process any more, so the keeper then ends it. */
static int is_out_of_reach(void)
{
    struct stat own, own_record;
    /* a failed fstat() of an open file proves nothing: then everything counts as there */
    int is_there = fstat(self.directory, &own) != 0 || fstat(self.record, &own_record) != 0;
    for (size_t i = 0; i < PLACES && !is_there; i++) {
        int place = open_place(i, 0), directory = place < 0 ? -1 : open_in(place, self.id);
        is_there = directory >= 0 && is_same(&own, directory, ".") && is_same(&control, directory, "control") &&
                   is_same(&own_record, directory, "record");
        if (directory >= 0)
            close(directory);
        if (place >= 0)
            close(place);
    }
    return !is_there;
}

/* Room for one descriptor in a message (SCM_RIGHTS). */
union passed {
    char room[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

/* Send the order back to say that it is done, with a copy of the descriptor `fd` unless that is -1. */
static void answer(int client, struct order *order, int fd)
{
    union passed passed = {0};
    struct iovec data = {order, sizeof *order};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = passed.room;
        message.msg_controllen = sizeof passed.room;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    sendmsg(client, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Accept one connection and carry out its order. */
static void obey(void)
{
    struct order order;
    struct timeval patience = {.tv_usec = 100000}; /* a client that sends nothing must not block the keeper */
    int client = accept4(self.control, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0)
        return;
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (recv(client, &order, sizeof order, 0) == (ssize_t)sizeof order) {
        if (order.kind == ORDER_STOP && stops++ < STOPS_MAX) {
            stop(order.value);
            return; /* without close(): the connection ends with this process, and that is the answer */
        }
        if (order.kind == ORDER_SIGNAL && !command_ended && kill(-command, (int)order.value) != 0)
            kill(command, (int)order.value);
        if (order.kind == ORDER_CLOSE_INPUT && self.input[1] >= 0) {
            close(self.input[1]);
            self.input[1] = -1;
        }
        answer(client, &order, order.kind == ORDER_GIVE_INPUT && !command_ended ? self.input[1] : -1);
    }
    close(client);
}

/* --- its life ----------------------------------------------------------------------------------------------------- */

/* Reap every child that has ended. Return whether there are children left. */
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

/* Record the end of the command. Its output is logged first: a reader who sees RECORD_ENDED then finds all of it. */
static void note_end(void)
{
    int bytes;
    for (int i = 0; i < 2; i++)
        if (logs[i].pipe >= 0 && ioctl(logs[i].pipe, FIONREAD, &bytes) == 0 && bytes > 0)
            drain_log(&logs[i], (size_t)bytes);
    record->exit_code = WIFSIGNALED(command_status) ? 128 + (uint32_t)WTERMSIG(command_status)
                                                    : (uint32_t)WEXITSTATUS(command_status);
    record->ended_ms = wall_ms();
    save(RECORD_ENDED);
}

/* Free the memory of a long command line. Its texts lie next to each other in the channel's inbox, of which this
 * process has a forked copy; nothing on the pages between the first and the last one is needed any more. */
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

/* Start the command and report that; exit if it cannot be started. */
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
    /* else this process would hold the command's ends: no end of file for the logs, no EPIPE for the input */
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
    (void)!chdir("/"); /* do not keep the directory in use */
    drop_texts(request);
}

/* Wait for an order, output, a signal or the time to kill, and handle the first two. `open_mask` lets SIGCHLD in. */
static void look_around(const sigset_t *open_mask)
{
    struct pollfd ready[] = {
        {.fd = self.control, .events = POLLIN},
        {.fd = logs[0].pipe, .events = POLLIN},
        {.fd = logs[1].pipe, .events = POLLIN},
    };
    int is_deaf = logs[0].pipe < 0 && logs[1].pipe < 0;
    int64_t left = kill_at ? kill_at - now_ms() : DEAF_MS;
    left = left < 0 ? 0 : left;
    struct timespec wait = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
    int count = ppoll(ready, 3, kill_at || is_deaf ? &wait : NULL, open_mask);
    if (count < 0 && errno == EINVAL) { /* another process has lowered RLIMIT_NOFILE: look every 20 ms */
        struct timespec pause = {.tv_nsec = 20000000};
        ppoll(NULL, 0, &pause, open_mask);
    }
    if (count <= 0)
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
    char name[16];
    self = *own;
    record = begun;
    setsid();
    snprintf(name, sizeof name, KEEPER_NAME "%.8s", self.id);
    prctl(PR_SET_NAME, name);
    (void)fstatat(self.directory, "control", &control, AT_SYMLINK_NOFOLLOW);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    sigfillset(&all); /* the process's kill(-1, ...) must not end its keeper */
    sigprocmask(SIG_SETMASK, &all, NULL);
    all_but_child = all;
    sigdelset(&all_but_child, SIGCHLD);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGCHLD, &action, NULL);
    start(request);
    /* until no child is left; as a subreaper it adopts whatever the command leaves behind */
    while (reap()) {
        if (command_ended && record->state == RECORD_BEGUN)
            note_end();
        if (was_poked && !kill_at && is_out_of_reach())
            kill_at = now_ms();
        was_poked = 0;
        if (kill_at && kill_at <= now_ms()) {
            if (kill_descendants(KILL_MS, reap))
                break;
            kill_at = now_ms() + KILL_MS; /* try again */
        }
        /* A child that another process traces stays a zombie, so reap() never comes to an end. Stop once no descendant
         * is alive; that is looked up only after the pipes are closed, because it scans /proc. */
        if (logs[0].pipe < 0 && logs[1].pipe < 0 && !has_living_descendants() && reap())
            break;
        look_around(&all_but_child);
    }
    if (!command_ended)
        command_status = SIGKILL;
    if (record->state == RECORD_BEGUN)
        note_end();
    for (int i = 0; i < 2; i++)
        drain_log(&logs[i], PIPE_MOST);
    save(RECORD_FINISHED); /* before exit releases the lock, or the keeper would seem to have been killed */
    unlinkat(self.directory, "control", 0);
    _exit(0);
}

/* --- from outside ------------------------------------------------------------------------------------------------- */

struct sockaddr_un control_of(int directory)
{
    /* bind() and connect() take no directory descriptor, but /proc/self/fd leads to it without a race */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/control", directory);
    return address;
}

/* Connect to a keeper. Return the connection; -1 if the keeper has ended, -2 if it takes no more connections. */
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
    /* The lock before the record: a keeper writes the end before it lets go of the lock, so if the lock is free, the
     * record below is final. */
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
    if (is_keeper((pid_t)found->keeper))
        kill((pid_t)found->keeper, SIGCONT);
}

/* Send an order and wait for its answer. Return the connection, with the answer (or the end, after a STOP) to be read;
 * -1 if the keeper has ended, -2 if it does not answer in time. */
static int order_keeper(int directory, int kind, uint32_t value, int64_t patience_ms)
{
    struct order order = {.kind = kind, .value = value};
    struct record found;
    int kept, fd = connect_keeper(directory);
    if (fd == -1)
        return -1;
    if (read_record(directory, &found, &kept))
        wake_keeper(&found);
    struct pollfd answered = {.fd = fd, .events = POLLIN};
    int patience = patience_ms > 1 << 30 ? 1 << 30 : (int)patience_ms;
    if (fd >= 0 && send(fd, &order, sizeof order, MSG_NOSIGNAL) == (ssize_t)sizeof order &&
        poll(&answered, 1, patience) > 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -2;
}

int tell_keeper(int directory, int kind, uint32_t value, int64_t patience_ms)
{
    int fd = order_keeper(directory, kind, value, patience_ms);
    if (fd >= 0)
        close(fd);
    return fd != -2;
}

int ask_for_input(int directory, int64_t patience_ms)
{
    struct order order;
    union passed passed;
    struct iovec data = {&order, sizeof order};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = passed.room, .msg_controllen = sizeof passed.room};
    int fd = order_keeper(directory, ORDER_GIVE_INPUT, 0, patience_ms), input = -1;
    if (fd < 0)
        return -1;
    if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC) == (ssize_t)sizeof order) {
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
            head->cmsg_len == CMSG_LEN(sizeof input))
            memcpy(&input, CMSG_DATA(head), sizeof input);
    }
    close(fd);
    return input;
}
