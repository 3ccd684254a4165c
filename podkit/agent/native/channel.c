/* The inside end of a channel: reads frames from standard input and writes frames to standard output.
 *
 * One thread serves all commands from an epoll loop. No command can block it: output is subject to a credit window per
 * command, and input waits in a buffer per command.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define COMMANDS_MAX 1024
#define OUTBOX_SIZE (256u << 10)
#define OUTBOX_RESERVE (64u << 10) /* kept free of output, for all other frames */
#define INBOX_SIZE (256u << 10)
#define STREAM_SIZE (1 << 20)

const struct user *own_user;

struct command;

/* A descriptor in an epoll set; events point to it. */
struct source {
    struct command *command;
    int fd;
    int watched;
};

struct command {
    struct command *next;
    uint32_t id;
    pid_t supervisor;
    struct source control, in, out, err;
    uint32_t window; /* bytes of output that the host still takes */
    char *input;     /* INPUT_WINDOW bytes that buffer unread input; NULL if the command has none */
    size_t input_begin, input_end;
    uint32_t taken;   /* bytes of input that the command has taken and the host has not been told of */
    int input_closed; /* the host sends no more */
    int finished, overlapped, dead, is_built_in; /* overlapped: an OOM kill may have hit something else that runs */
    uint64_t kills_before;                       /* memory_kills() at its start */
    struct ended end;
    size_t left_out, left_err; /* bytes in the pipes at its end that are still to be sent */
};

static struct command *commands;
static size_t running;
/* Two epoll sets. `outputs` holds the pipes of all commands' output and is itself watched by `events`, so that one call
 * pauses all output while the outbox is full. */
static int events, outputs, nothing, kills_fd = -1, outputs_open = 1;
static int undrained; /* a command has ended, and the outbox had no room for the rest of its output */
static int64_t lifetime, idle_since;
static int has_keepers; /* this channel has started a background process */
static int others_run;  /* background processes or leftovers of commands may run: the OOM killer may pick these, too */
static int tells_first_process;

static char outbox[OUTBOX_SIZE];
static size_t out_begin, out_end;
static char *inbox;
static size_t in_end, in_room;
static int waiting_to_write;
static struct {
    uint32_t id; /* of its command */
    size_t left; /* bytes that have not arrived */
} coming;        /* the INPUT frame that has arrived in part */

/* --- going out ---------------------------------------------------------------------------------------------------- */

static void watch(int set, struct source *source, uint32_t what)
{
    struct epoll_event event = {.events = what, .data.ptr = source};
    if (epoll_ctl(set, source->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, source->fd, &event) == 0)
        source->watched = 1;
}

static void unwatch(int set, struct source *source)
{
    if (source->watched)
        epoll_ctl(set, EPOLL_CTL_DEL, source->fd, NULL);
    source->watched = 0;
}

static void close_source(int set, struct source *source)
{
    if (source->fd < 0)
        return;
    unwatch(set, source);
    close(source->fd);
    source->fd = -1;
}

static struct source host_in = {.fd = 0}, host_out = {.fd = 1}, signals = {.fd = -1}, output_set = {.fd = -1};

/* Write the outbox to the host until the pipe is full; epoll then says when to go on. */
static void flush(void)
{
    while (out_begin < out_end) {
        ssize_t size = write(1, outbox + out_begin, out_end - out_begin);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0 && errno == EAGAIN) {
            if (!waiting_to_write)
                watch(events, &host_out, EPOLLOUT);
            waiting_to_write = 1;
            return;
        }
        if (size < 0)
            _exit(0); /* the host is gone */
        out_begin += (size_t)size;
    }
    out_begin = out_end = 0;
    if (waiting_to_write)
        unwatch(events, &host_out);
    waiting_to_write = 0;
}

/* Return the end of the outbox, with room for `size` bytes there; the caller adds what it writes to out_end.
 *
 * This blocks until the host has read enough. That is rare: output stops at has_room(), so only other frames get
 * here with less than OUTBOX_RESERVE left. */
static char *reserve(size_t size)
{
    while (OUTBOX_SIZE - out_end < size) {
        if (out_begin > 0) {
            memmove(outbox, outbox + out_begin, out_end - out_begin);
            out_end -= out_begin;
            out_begin = 0;
            continue;
        }
        struct pollfd host = {.fd = 1, .events = POLLOUT};
        poll(&host, 1, -1);
        flush();
    }
    return outbox + out_end;
}

static void send_frame(uint8_t type, uint32_t id, const void *data, size_t size)
{
    char *place = reserve(sizeof(struct header) + size);
    struct header header = {.length = (uint32_t)size, .id = id, .type = type};
    memcpy(place, &header, sizeof header);
    if (size)
        memcpy(place + sizeof header, data, size);
    out_end += sizeof header + size;
}

/* Return whether a full frame of output fits without touching the reserve. */
static int has_room(void)
{
    return OUTBOX_SIZE - (out_end - out_begin) >= OUTBOX_RESERVE + DATA_MAX + sizeof(struct header);
}

/* --- commands ----------------------------------------------------------------------------------------------------- */

static struct command *find(uint32_t id)
{
    for (struct command *command = commands; command; command = command->next)
        if (command->id == id && !command->dead)
            return command;
    return NULL;
}

/* Return how many processes of this container the OOM killer has killed; 0 if the cgroup does not tell. */
static uint64_t memory_kills(void)
{
    char text[1024];
    if (kills_fd < 0)
        return 0;
    ssize_t size = pread(kills_fd, text, sizeof text - 1, 0);
    if (size <= 0)
        return 0;
    text[size] = '\0';
    for (char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, "oom_kill ", 9) == 0)
            return strtoull(line + 9, NULL, 10);
    return 0;
}

/* Close everything that belongs to a command and take it out of service. */
static void bury(struct command *command)
{
    close_source(events, &command->control);
    close_source(events, &command->in);
    close_source(outputs, &command->out);
    close_source(outputs, &command->err);
    if (!command->dead && --running == 0)
        idle_since = now_ms();
    command->dead = 1; /* freed after this round's events, which may still point to it */
}

static void free_dead(void)
{
    for (struct command **place = &commands; *place;) {
        struct command *command = *place;
        if (!command->dead) {
            place = &command->next;
            continue;
        }
        *place = command->next;
        free(command->input);
        free(command);
    }
}

static void fail(uint32_t id, int failure, int error)
{
    int32_t why[2] = {failure, error};
    send_frame(FAILED, id, why, sizeof why);
}

/* Tell the host that this channel ends. No request is read after it, so the host may send those that got no answer to
 * another channel without running any of them twice. */
static void say_bye(void)
{
    send_frame(BYE, 0, NULL, 0);
    flush(); /* before poll(), which fails if RLIMIT_NOFILE was lowered */
    while (out_end > out_begin) {
        struct pollfd host = {.fd = 1, .events = POLLOUT};
        if (poll(&host, 1, 1000) <= 0)
            break;
        flush();
    }
}

/* Refuse a command because this channel can start none any more, and end: the host opens another channel. */
static _Noreturn void fail_for_ever(uint32_t id, int error)
{
    fail(id, NO_AGENT, error);
    /* BYE says that commands without STARTED were not begun. Those that run may not have sent it: see START_QUIET. */
    for (struct command *command = commands; command; command = command->next)
        if (!command->dead) {
            uint32_t pid = (uint32_t)command->supervisor;
            send_frame(STARTED, command->id, &pid, sizeof pid);
        }
    say_bye();
    _exit(0);
}

/* Send EXIT once all output from before the command's end has been sent: EXIT is its last frame. */
static void finish_if_drained(struct command *command)
{
    if (!command->finished || command->dead)
        return;
    if (command->left_out || command->left_err) {
        undrained = 1;
        return;
    }
    send_frame(EXIT, command->id, &command->end, sizeof command->end);
    bury(command);
}

/* Send output of a command, as much as its pipe, its window and the outbox allow. Read straight into the outbox,
 * behind the room for the frame's header. */
static void pump(struct command *command, struct source *source)
{
    int is_out = source == &command->out;
    size_t *left = is_out ? &command->left_out : &command->left_err;
    while (source->fd >= 0 && has_room()) {
        size_t most = DATA_MAX;
        if (command->finished)
            most = *left < most ? *left : most; /* beyond the window, too: it is one pipe's content at most */
        else if (command->window < most)
            most = command->window;
        if (most == 0) { /* else epoll would report this pipe without end; CREDIT watches it again */
            unwatch(outputs, source);
            return;
        }
        char *place = reserve(sizeof(struct header) + most);
        ssize_t size = read(source->fd, place + sizeof(struct header), most);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0 && errno == EAGAIN) {
            if (command->finished)
                *left = 0; /* a process that shares the pipe has read it */
            return;
        }
        if (size <= 0) {
            close_source(outputs, source);
            *left = 0;
            return;
        }
        struct header header = {.length = (uint32_t)size, .id = command->id, .type = is_out ? STDOUT : STDERR};
        memcpy(place, &header, sizeof header);
        out_end += sizeof header + (size_t)size;
        if (command->finished)
            *left -= (size_t)size;
        command->window -= command->window < (uint32_t)size ? command->window : (uint32_t)size;
        if ((size_t)size < most && !command->finished) /* the pipe is empty: save the read that would say so */
            return;
    }
}

/* Handle the end of a command: send the output that its pipes hold now, then EXIT. */
static void finish(struct command *command, uint32_t exit_code, uint32_t flags)
{
    int bytes;
    command->finished = 1;
    command->end.exit_code = exit_code;
    command->end.flags = flags;
    /* Do not wait for end of file: a child in the background may hold the pipes open for ever. */
    if (command->out.fd >= 0 && ioctl(command->out.fd, FIONREAD, &bytes) == 0 && bytes > 0)
        command->left_out = (size_t)bytes;
    if (command->err.fd >= 0 && ioctl(command->err.fd, FIONREAD, &bytes) == 0 && bytes > 0)
        command->left_err = (size_t)bytes;
    close_source(events, &command->control);
    close_source(events, &command->in);
    if (command->left_out) /* again: with its window used up it is not watched */
        watch(outputs, &command->out, EPOLLIN);
    if (command->left_err)
        watch(outputs, &command->err, EPOLLIN);
    pump(command, &command->out);
    pump(command, &command->err);
    finish_if_drained(command);
}

/* Read the supervisor's reports; end of file means that it was killed. */
static void hear(struct command *command)
{
    struct report report;
    while (!command->dead && !command->finished) {
        ssize_t size = recv(command->control.fd, &report, sizeof report, MSG_DONTWAIT);
        if (size < 0 && errno == EAGAIN)
            return;
        if (size < 0 && errno == ECONNRESET)
            continue; /* it ended with an order unread; its last report is queued behind this error */
        if (size != (ssize_t)sizeof report) {
            finish(command, 128 + SIGKILL, ENDED_LOST);
            return;
        }
        if (report.kind == REPORT_STARTED) {
            uint32_t pid = (uint32_t)report.value;
            send_frame(STARTED, command->id, &pid, sizeof pid);
        } else if (report.kind == REPORT_FAILED) {
            fail(command->id, report.value, report.detail);
            bury(command);
        } else {
            uint32_t flags = (uint32_t)report.detail & (ENDED_SURVIVORS | ENDED_TIMED_OUT);
            uint32_t code = WIFSIGNALED(report.value) ? 128 + (uint32_t)WTERMSIG(report.value)
                                                      : (uint32_t)WEXITSTATUS(report.value);
            /* The cgroup counts OOM kills of the whole container. One counts as this command's if a process of it
             * died of SIGKILL, or if nothing else ran at the time. */
            int was_killed = report.detail & ENDED_OOM || code == 128 + SIGKILL;
            if (memory_kills() > command->kills_before && (was_killed || !command->overlapped))
                flags |= ENDED_OOM;
            others_run |= (report.detail & ENDED_LEFT) != 0;
            finish(command, code, flags);
        }
    }
}

/* Send an order to the supervisor: a signal's number, or CONTROL_KILL_TREE. */
static void control(struct command *command, uint8_t order)
{
    if (command->control.fd >= 0)
        send(command->control.fd, &order, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Write input to the command's pipe. Return how much it took: all of it if the command reads no more. */
static size_t give(struct command *command, const char *data, size_t size)
{
    size_t given = 0;
    while (command->in.fd >= 0 && given < size) {
        ssize_t more = write(command->in.fd, data + given, size - given);
        if (more < 0 && errno == EINTR)
            continue;
        if (more < 0 && errno == EAGAIN)
            break;
        if (more < 0) { /* EPIPE: nobody reads */
            close_source(events, &command->in);
            return size;
        }
        given += (size_t)more;
    }
    return command->in.fd < 0 ? size : given;
}

/* Tell the host how much input was taken, so that it may send more. Small amounts are added up, because each frame
 * wakes the host. */
static void tell_taken(struct command *command, size_t size)
{
    int refused = command->in.fd < 0 && !command->input_closed; /* the command closed it: tell that at once */
    command->taken += (uint32_t)size;
    if (command->taken < INPUT_NOTE && !refused)
        return;
    uint32_t note[2] = {command->taken, (uint32_t)refused};
    send_frame(TAKEN, command->id, note, sizeof note);
    command->taken = 0;
}

/* Write buffered input now that the pipe has room again. */
static void feed(struct command *command)
{
    size_t given = give(command, command->input + command->input_begin, command->input_end - command->input_begin);
    command->input_begin += given;
    if (command->input_begin == command->input_end) {
        command->input_begin = command->input_end = 0;
        if (command->in.fd >= 0)
            unwatch(events, &command->in);
    }
    tell_taken(command, given);
    if (command->input_end == 0 && command->input_closed)
        close_source(events, &command->in);
}

/* --- starting ----------------------------------------------------------------------------------------------------- */

/* Parse a START frame in place. Return 0 if it is malformed or there is no memory. The texts stay in `data`; the caller
 * frees request->arguments. */
static int parse(struct request *request, char *data, size_t size)
{
    if (size < sizeof request->start || data[size - 1] != '\0')
        return 0;
    memcpy(&request->start, data, sizeof request->start);
    size_t count = (size_t)request->start.arguments + request->start.variables;
    if (request->start.arguments == 0 || count > size)
        return 0;
    char **texts = calloc(count + 2, sizeof *texts);
    if (!texts)
        return 0;
    char *at = data + sizeof request->start, *end = data + size;
    const char *heads[2];
    for (size_t i = 0; i < count + 2; i++) {
        if (at >= end) {
            free(texts);
            return 0;
        }
        if (i < 2)
            heads[i] = at;
        else if (i - 2 < request->start.arguments)
            texts[i - 2] = at;
        else
            texts[i - 1] = at; /* one entry further: the NULL between them ends the arguments */
        at += strlen(at) + 1;
    }
    request->user = heads[0];
    request->directory = heads[1];
    request->arguments = texts;
    request->variables = texts + request->start.arguments + 1;
    return 1;
}

static void close_pair(int pair[2])
{
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
}

static void watch_command(struct command *command)
{
    fcntl(command->out.fd, F_SETFL, O_NONBLOCK);
    fcntl(command->err.fd, F_SETFL, O_NONBLOCK);
    if (command->in.fd >= 0)
        fcntl(command->in.fd, F_SETFL, O_NONBLOCK);
    watch(events, &command->control, EPOLLIN);
    if (command->window) {
        watch(outputs, &command->out, EPOLLIN);
        watch(outputs, &command->err, EPOLLIN);
    }
}

/* Handle START: make the pipes, fork the supervisor and watch it; send FAILED if any of that cannot be done. */
static void start(uint32_t id, char *data, size_t size)
{
    struct request request;
    if (!restore_limits()) /* commands would inherit limits that another process has lowered */
        fail_for_ever(id, EPERM);
    if (find(id) || !parse(&request, data, size)) {
        fail(id, NO_PROCESS, EPROTO);
        return;
    }
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1}, socket[2] = {-1, -1}, has_input;
    has_input = (request.start.flags & START_INPUT) != 0;
    struct command *command = running < COMMANDS_MAX ? calloc(1, sizeof *command) : NULL;
    if (command && has_input)
        command->input = malloc(INPUT_WINDOW);
    errno = EAGAIN; /* for too many commands, or no memory */
    if (!command || (has_input && !command->input) || (has_input && pipe2(in, O_CLOEXEC) != 0) ||
        pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socket) != 0)
        goto impossible;
    command->kills_before = memory_kills(); /* before the command can use any memory */
    pid_t pid = fork();
    if (pid == 0)
        supervise(&request, socket[1], has_input ? in[0] : nothing, out[1], err[1]);
    if (pid < 0) {
        if (request.start.flags & START_BUILT_IN)
            do_without_process(request.arguments);
        goto impossible;
    }
    command->is_built_in = (request.start.flags & START_BUILT_IN) != 0;
    int begins_process = command->is_built_in && strcmp(request.arguments[0], "process") == 0 &&
                         request.arguments[1] && strcmp(request.arguments[1], "start") == 0;
    has_keepers |= begins_process;
    others_run |= begins_process;
    /* If commands overlap, the kernel's counter does not tell whose process it has killed. Built-ins need hardly
     * any memory and do not count, except for one that starts a background process. */
    command->overlapped = others_run;
    for (struct command *other = commands; other; other = other->next)
        if (!other->finished && !other->is_built_in && (!command->is_built_in || begins_process))
            command->overlapped = other->overlapped = 1;
    command->id = id;
    command->supervisor = pid;
    command->control = (struct source){command, socket[0], 0};
    command->in = (struct source){command, in[1], 0};
    command->out = (struct source){command, out[0], 0};
    command->err = (struct source){command, err[0], 0};
    command->window = request.start.window;
    command->next = commands;
    commands = command;
    running++;
    if (has_input) /* with these left open, the channel would see neither end of file nor EPIPE */
        close(in[0]);
    close(out[1]);
    close(err[1]);
    close(socket[1]);
    watch_command(command);
    free(request.arguments);
    return;
impossible:
    if (errno == EMFILE && running == 0) /* RLIMIT_NOFILE was lowered before remember_limits() */
        fail_for_ever(id, errno);
    fail(id, NO_PROCESS, errno);
    close_pair(in);
    close_pair(out);
    close_pair(err);
    close_pair(socket);
    if (command)
        free(command->input);
    free(command);
    free(request.arguments);
}

/* --- coming in ---------------------------------------------------------------------------------------------------- */

/* Read the number that a frame holds; missing bytes are zero. */
static uint32_t number(const char *data, size_t size)
{
    uint32_t value = 0;
    memcpy(&value, data, size < sizeof value ? size : sizeof value);
    return value;
}

/* Pass input on to the command, and buffer what its pipe does not take. A size of 0 is the end of the input. */
static void take_input(struct command *command, const char *data, size_t size)
{
    if (!command->input || command->input_closed)
        return;
    if (size == 0)
        command->input_closed = 1;
    size_t waiting = command->input_end - command->input_begin;
    if (size > INPUT_WINDOW - waiting)
        _exit(65); /* more than the window: not a host of podkit's */
    size_t given = waiting ? 0 : give(command, data, size); /* after earlier input, if any is buffered */
    if (size - given > INPUT_WINDOW - command->input_end) {
        memmove(command->input, command->input + command->input_begin, waiting);
        command->input_begin = 0;
        command->input_end = waiting;
    }
    memcpy(command->input + command->input_end, data + given, size - given);
    command->input_end += size - given;
    if (command->input_end && command->in.fd >= 0)
        watch(events, &command->in, EPOLLOUT);
    tell_taken(command, given);
    if (command->input_end == 0 && command->input_closed)
        close_source(events, &command->in);
}

static void obey(const struct header *header, char *data)
{
    struct command *command = header->type == START ? NULL : find(header->id);
    if (header->type == START) {
        start(header->id, data, header->length);
    } else if (header->type == PING) {
        /* count this channel's commands here, not in /proc: a supervisor is visible a little longer than its command */
        uint32_t count = count_others();
        for (struct command *command = commands; command; command = command->next)
            count += !command->dead && !command->finished;
        send_frame(PONG, header->id, &count, sizeof count);
    } else if (!command) {
        return; /* it has ended in the meantime */
    } else if (header->type == INPUT) {
        take_input(command, data, header->length);
    } else if (header->type == SIGNAL) {
        control(command, (uint8_t)number(data, header->length));
    } else if (header->type == KILL) {
        control(command, CONTROL_KILL_TREE);
    } else if (header->type == CREDIT) {
        command->window += number(data, header->length);
        if (command->out.fd >= 0)
            watch(outputs, &command->out, EPOLLIN);
        if (command->err.fd >= 0)
            watch(outputs, &command->err, EPOLLIN);
    }
}

/* Grow the inbox to at least `room` bytes. Return 0 if there is no memory. */
static int make_room(size_t room)
{
    if (room < INBOX_SIZE)
        room = INBOX_SIZE;
    if (room <= in_room)
        return 1;
    char *made = realloc(inbox, room);
    if (!made)
        return 0;
    inbox = made;
    in_room = room;
    return 1;
}

/* Handle the frame at the beginning of `data`. Return how many bytes were used; 0 if more have to arrive first. */
static size_t take_frame(char *data, size_t size)
{
    struct header header;
    if (size < sizeof header)
        return 0;
    memcpy(&header, data, sizeof header);
    if (header.length > START_MAX)
        _exit(65);
    size_t whole = sizeof header + header.length;
    if (size >= whole) {
        obey(&header, data + sizeof header);
        return whole;
    }
    if (header.type == INPUT) { /* handled as it arrives, so it needs no room for the whole frame */
        coming.id = header.id;
        coming.left = header.length;
        return sizeof header;
    }
    if (whole > in_room && !make_room(whole))
        _exit(65);
    return 0;
}

/* Handle the next part of the INPUT frame in `coming`. Return how many bytes were used. */
static size_t take_part(char *data, size_t size)
{
    struct command *command = find(coming.id);
    size = size < coming.left ? size : coming.left;
    coming.left -= size;
    if (command && size)
        take_input(command, data, size);
    return size;
}

/* Read from the host once, and handle each frame that is complete. */
static void receive(void)
{
    ssize_t size = read(0, inbox + in_end, in_room - in_end);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0)
        _exit(0); /* the host is gone; this closes the control sockets, and supervisors then kill their commands */
    in_end += (size_t)size;
    size_t begin = 0, taken;
    do {
        char *data = inbox + begin;
        taken = coming.left ? take_part(data, in_end - begin) : take_frame(data, in_end - begin);
        begin += taken;
    } while (taken);
    memmove(inbox, inbox + begin, in_end - begin);
    in_end -= begin;
    if (in_end == 0 && in_room > INBOX_SIZE) { /* free the memory of a large START */
        free(inbox);
        inbox = NULL;
        in_room = 0;
        if (!make_room(INBOX_SIZE))
            _exit(65);
    }
}

/* --- time --------------------------------------------------------------------------------------------------------- */

/* Tell the first process that this channel is there, or that its lifetime is over; see first_process.c. */
static void tell_first_process(enum life what)
{
    union sigval value = {.sival_int = what};
    if (lifetime && tells_first_process)
        sigqueue(1, LIFE_SIGNAL, value);
}

/* Return the milliseconds until the lifetime is over; -1 while a command runs, or without a lifetime. */
static int next_timeout(void)
{
    if (lifetime == 0 || running > 0)
        return -1;
    int64_t left = idle_since + lifetime - now_ms();
    return left < 0 ? 0 : left > 1 << 30 ? 1 << 30 : (int)left;
}

/* End this channel if its lifetime has passed; a background process renews it. */
static void look_at_clock(void)
{
    if (next_timeout() == 0 && is_anything_kept()) {
        idle_since = now_ms();
    } else if (next_timeout() == 0) {
        say_bye(); /* a request that arrives from here on stays unread, and the host sends it again */
        tell_first_process(LIFE_OVER);
        _exit(0);
    }
}

/* Exit before HELLO, with the failed call as the reason. The host then works without a channel. IN_WANT is the
 * exception: a process inside may have used up a resource, so another channel may succeed. */
static _Noreturn void give_up(const char *call)
{
    int is_want = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == EAGAIN;
    dprintf(2, "%s: %s", call, strerror(errno)); /* the host shows it as the reason */
    _exit(is_want ? IN_WANT : 71);
}

/* Set up signals, descriptors and epoll sets; give_up() if anything that a channel needs is missing. */
static void prepare(void)
{
    const char *forbidden = find_forbidden();
    if (forbidden)
        give_up(forbidden);
    /* Not dumpable: no command of the same user can trace or read this process. A subreaper: orphans stay below it. */
    int is_kept = prctl(PR_SET_DUMPABLE, 0) == 0 && prctl(PR_SET_CHILD_SUBREAPER, 1) == 0;
    if (!is_kept && (tells_first_process || errno != EINVAL)) /* an emulator, outside any container, supports neither */
        give_up("prctl");
    prctl(PR_SET_NAME, CHANNEL_NAME);
    remember_limits();
    sigset_t all, mask;
    sigfillset(&all); /* as in supervise(); SIGPIPE, too: flush() handles a host that is gone */
    sigprocmask(SIG_BLOCK, &all, NULL);
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigaddset(&mask, SIGCONT);
    signals.fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals.fd < 0)
        give_up("signalfd4");
    fcntl(0, F_SETFL, O_NONBLOCK);
    fcntl(1, F_SETFL, O_NONBLOCK);
    fcntl(0, F_SETPIPE_SZ, STREAM_SIZE); /* if allowed: the engine's processes then wait less often for this one */
    fcntl(1, F_SETPIPE_SZ, STREAM_SIZE);

    /* check that it is the real /dev/null: an image may have put any other file there */
    struct stat about;
    nothing = open("/dev/null", O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (nothing < 0 || fstat(nothing, &about) != 0 || !S_ISCHR(about.st_mode) || about.st_rdev != makedev(1, 3)) {
        int pair[2]; /* a pipe without a writer is as empty */
        if (pipe2(pair, O_CLOEXEC) != 0)
            give_up("pipe2");
        close(pair[1]);
        nothing = pair[0];
    }
    kills_fd = open("/sys/fs/cgroup/memory.events", O_RDONLY | O_CLOEXEC);
    if (kills_fd < 0)
        kills_fd = open("/sys/fs/cgroup/memory/memory.oom_control", O_RDONLY | O_CLOEXEC);
    events = epoll_create1(EPOLL_CLOEXEC);
    outputs = output_set.fd = epoll_create1(EPOLL_CLOEXEC);
    if (events < 0 || outputs < 0)
        give_up("epoll_create1");
    if (!make_room(INBOX_SIZE))
        give_up("malloc");
    watch(events, &host_in, EPOLLIN);
    watch(events, &signals, EPOLLIN);
    watch(events, &output_set, EPOLLIN);
}

static int is_supervisor(pid_t pid)
{
    for (struct command *command = commands; command; command = command->next)
        if (command->supervisor == pid && !command->finished)
            return 1;
    return 0;
}

/* Reap one child as waitpid(-1, ...) does. A new lifetime begins if it was the keeper of a background process. */
static pid_t reap(int *status)
{
    siginfo_t child = {0};
    /* WNOWAIT: is_keeper() reads /proc, so look at the child while it is still a zombie */
    if (has_keepers && waitid(P_ALL, 0, &child, WEXITED | WSTOPPED | WNOHANG | WNOWAIT) == 0 && child.si_pid > 0 &&
        child.si_code != CLD_STOPPED && is_keeper(child.si_pid))
        idle_since = now_ms();
    return waitpid(child.si_pid > 0 ? child.si_pid : -1, status, WNOHANG | WUNTRACED);
}

/* Handle SIGCHLD and SIGCONT from the signalfd. */
static void hear_signals(void)
{
    struct signalfd_siginfo info;
    pid_t pid;
    int status;
    while (read(signals.fd, &info, sizeof info) == (ssize_t)sizeof info)
        if (info.ssi_signo == SIGCONT)
            tell_first_process(LIFE_HELD); /* this process was stopped, and then it does not hold the lifetime */
    /* this only clears zombies: the control sockets report the end of supervisors */
    while ((pid = reap(&status)) > 0)
        if (WIFSTOPPED(status) && is_supervisor(pid))
            kill(pid, SIGCONT); /* a stopped supervisor could not kill its command */
    others_run &= pid == 0 || errno != ECHILD; /* without children, no leftovers run */
}

/* Go on with commands whose last output had no room in the outbox. This cannot be left to epoll: if another process has
 * read the pipe in the meantime, there is no event. */
static void pump_finished(void)
{
    undrained = 0;
    for (struct command *command = commands; command; command = command->next)
        if (command->finished && !command->dead) {
            pump(command, &command->out);
            pump(command, &command->err);
            finish_if_drained(command);
        }
}

/* Send the output of each command that has some. */
static void pump_all(void)
{
    struct epoll_event ready[64];
    int count = epoll_wait(outputs, ready, 64, 0);
    for (int i = 0; i < count; i++) {
        struct source *source = ready[i].data.ptr;
        if (source->fd < 0)
            continue;
        pump(source->command, source);
        finish_if_drained(source->command);
    }
}

/* Become the user of this channel, from root.
 *
 * If the engine started a channel as its user, the user's other processes could trace it until it clears
 * PR_SET_DUMPABLE. An unreadable program would not prevent that, because an engine may grant the rights to read it.
 * When a process changes from root, the kernel clears the flag at once. */
static void become_own(const char *text)
{
    static struct user user;
    if (find_user(text, &user) != 0)
        _exit(NO_SUCH_USER);
    if (!become(&user, NOBODYS_UID) && !become(&user, user.uid)) /* NOBODYS_UID: see guard_limits() */
        _exit(NOT_ALLOWED);
    own_user = &user;
}

int channel_main(const char *text, int tells_first, const char *user)
{
    tells_first_process = tells_first;
    lifetime = parse_lifetime(text);
    if (lifetime < 0)
        return 64;
    guard_limits();
    if (user)
        become_own(user);
    prepare();
    idle_since = now_ms();
    tell_first_process(LIFE_HELD);
    uint32_t protocol = PROTOCOL;
    send_frame(HELLO, 0, &protocol, sizeof protocol);
    for (;;) {
        flush();
        /* backpressure: while the host does not read, output stays in the pipes, and writers block */
        if (has_room() != outputs_open) {
            outputs_open = has_room();
            watch(events, &output_set, outputs_open ? EPOLLIN : 0);
        }
        if (undrained && has_room()) {
            pump_finished();
            flush();
        }
        struct epoll_event ready[64];
        int count = epoll_wait(events, ready, 64, next_timeout());
        for (int i = 0; i < count; i++) {
            /* a negative fd: an earlier event of this round has closed it */
            struct source *source = ready[i].data.ptr;
            if (source == &host_in)
                receive();
            else if (source == &signals)
                hear_signals();
            else if (source == &output_set)
                pump_all();
            else if (source != &host_out && source->fd >= 0 && source == &source->command->control)
                hear(source->command);
            else if (source != &host_out && source->fd >= 0 && source == &source->command->in)
                feed(source->command);
        }
        look_at_clock();
        free_dead();
    }
}
