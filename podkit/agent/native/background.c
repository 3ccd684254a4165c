/* The built-in for background processes. The other side is podkit/agent/processes.py.
 *
 *   process start ID NOTE USER INPUT ARGUMENT...   uses the request's variables and directory
 *   process look ID WAIT_MS | list                 answers with a struct row each, with its ports and note
 *   process log ID 1|2 OFFSET MOST WAIT_MS         answers with a struct piece, and the bytes
 *   process signal ID NUMBER | stop ID MS | input ID WAIT_MS | end-input ID | remove ID
 *
 * The built-in runs as the agent's user. USER is that of the new process, empty for the same. The exit code is an
 * enum result. start and stop answer with a row, input with the number of bytes that were taken.
 *
 * The files in the directories are hostile input: root, or any process of the agent's user, can change them. So reads
 * are bounded, and podkit relies on nothing that they say.
 */
#include "background.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NOTE_MAX (16u << 10)
#define LISTED_MAX 1024
#define PROCESSES_MAX 4096
#define PORTS_MAX 256
#define ANSWER_MS 2000 /* for a keeper to carry out an order */
#define KILL_MS 3000   /* for a keeper to kill */
#define LOOKS 50       /* how often judge() looks again, in all */
#define LATEST_MS 253402300799000 /* the end of the year 9999: Python's datetime goes no further */
#define LOOK_MS 5

enum result { DONE, NO_SUCH = 65, NO_PLACE, NOT_STARTED, NO_INPUT, STILL_RUNS, NO_ANSWER, NO_SENSE };
enum row_state { RUNNING = 1, PAUSED, ENDED, LOST };
enum left { NOTHING, SOMETHING, UNKNOWN };

struct row {
    uint32_t size, state, exit_code, pid;
    int64_t began_ms, ended_ms;
    uint32_t descendants; /* that are alive, without the process itself */
    uint32_t left;        /* enum left: whether the process or a descendant is alive */
    uint32_t ports;       /* the number of 16-bit ports that follow; 0xffffffff if they are not known */
    uint32_t note;        /* the number of bytes of the note, which follows the ports */
    char id[40];
};

struct piece {
    uint64_t offset; /* of the first byte that follows: later than asked for if older ones were dropped */
    uint32_t ended;  /* no output will be added any more */
    uint32_t zero;
};

static char answer[LOG_BUFFER];
static size_t answer_size;

static void write_all(const char *at, size_t size)
{
    while (size > 0) {
        ssize_t written = write(1, at, size);
        if (written < 0)
            _exit(1);
        at += written;
        size -= (size_t)written;
    }
}

static void flush(void)
{
    write_all(answer, answer_size);
    answer_size = 0;
}

/* Add to the answer. It is buffered, because each write wakes the channel and the host. */
static void put(const void *data, size_t size)
{
    if (size > sizeof answer - answer_size)
        flush();
    if (size > sizeof answer) {
        write_all(data, size);
        return;
    }
    memcpy(answer + answer_size, data, size);
    answer_size += size;
}

/* Answer with the reason of a failure. */
static enum result refuse(enum result result, int failure, int error)
{
    int32_t why[2] = {failure, error};
    put(why, sizeof why);
    return result;
}

static void pause_ms(int milliseconds)
{
    struct timespec time = {.tv_nsec = milliseconds * 1000000L};
    nanosleep(&time, NULL);
}

/* --- rows --------------------------------------------------------------------------------------------------------- */

/* Return the start time of the container's first process, field 22 of /proc/1/stat: a restart changes it. */
static uint64_t incarnation(void)
{
    char text[512];
    int proc = open("/proc/1", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    size_t size = proc < 0 ? 0 : read_file(proc, "stat", text, sizeof text - 1);
    if (proc >= 0)
        close(proc);
    text[size] = '\0';
    char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

/* Return whether the process itself runs. It has to be a child of its keeper: the pid may have been reused. */
static int is_running(const struct process *process, const struct record *record)
{
    return process && process->parent == (pid_t)record->keeper && !strchr("ZXx", process->state);
}

/* Find out the state of a process, from its record, the lock on that, and /proc. Fills in row->state, row->left and
 * the record. Return whether the keeper lives.
 *
 * The three can disagree: the record may be forged, and the keeper records an end a moment after it. Then look
 * again. */
static int judge(int directory, const char *id, const struct table *table, struct row *row, struct record *record)
{
    static int looks = LOOKS; /* shared by all processes of one call, so that `list` stays bounded */
    struct process now;
    row->state = LOST;
    row->left = UNKNOWN;
    for (;; looks--) {
        int kept, is_there = read_record(directory, record, &kept);
        /* A locked record that says "running" is believed. Anything else may be forged: look for the keeper. */
        pid_t keeper = kept && record->state < RECORD_ENDED ? 0 : find_keeper(table, id, 0);
        if (keeper) {
            if (!kept) /* the record is not the keeper's own: let it check that it can be reached */
                kill(keeper, SIGCHLD);
            kept = 1;
            record->keeper = (uint32_t)keeper;
            if (is_there && read_process((pid_t)record->pid, &now) == 0 && is_running(&now, record))
                record->state = RECORD_BEGUN;
        }
        if (!is_there)
            return kept;
        if (record->state >= RECORD_ENDED)
            row->state = ENDED;
        if (!kept && (record->state >= RECORD_FINISHED || record->incarnation != incarnation()))
            row->left = NOTHING;
        if (record->state >= RECORD_ENDED || !kept)
            return kept;
        const struct process *process = find_process(table, (pid_t)record->pid);
        if (!is_running(process, record)) /* the table may be older than the record */
            process = read_process((pid_t)record->pid, &now) == 0 ? &now : NULL;
        int runs = is_running(process, record);
        if (runs || record->pid == 0 || looks <= 0) { /* the keeper lives, so the end will be recorded later */
            row->state = runs && strchr("Tt", process->state) ? PAUSED : RUNNING;
            row->left = SOMETHING;
            return 1;
        }
        wake_keeper(record); /* the process has ended, and the keeper has not recorded that yet */
        pause_ms(LOOK_MS);
    }
}

/* Return whether the keeper lives, even if its record was removed or replaced. */
static int lives(int directory, const char *id)
{
    struct table table = {0};
    int found = is_kept(directory) || scan(&table) != 0 || find_keeper(&table, id, 0) != 0;
    free(table.rows);
    return found;
}

/* Return a time that the host can represent: a forged one must not make the whole answer invalid. */
static int64_t a_time(int64_t milliseconds)
{
    return milliseconds < 0 || milliseconds > LATEST_MS ? 0 : milliseconds;
}

/* Add the row of a process to the answer. Return whether its keeper lives. */
static int write_row(int directory, const char *id, struct table *table)
{
    static pid_t pids[PROCESSES_MAX];
    static char note[NOTE_MAX];
    uint16_t ports[PORTS_MAX];
    struct row row = {0};
    struct record record = {0};
    size_t count = 0;
    int kept = judge(directory, id, table, &row, &record);
    for (size_t i = 0; kept && record.keeper > 1 && i < table->count && count < PROCESSES_MAX; i++) {
        struct process *process = &table->rows[i];
        if (process->state == 'Z' || !is_descendant(table, process, (pid_t)record.keeper))
            continue;
        pids[count++] = process->pid;
        row.descendants += process->pid != (pid_t)record.pid;
    }
    if (kept && row.state == ENDED)
        row.left = count ? SOMETHING : NOTHING;
    int found = find_ports(pids, count, ports, PORTS_MAX);
    row.ports = found < 0 ? UINT32_MAX : (uint32_t)found;
    size_t ports_size = found < 0 ? 0 : (size_t)found * sizeof *ports;
    row.note = (uint32_t)read_file(directory, "note", note, sizeof note);
    row.size = (uint32_t)(sizeof row + ports_size + row.note);
    row.pid = record.pid;
    row.exit_code = record.exit_code & 255;
    row.began_ms = a_time(record.began_ms);
    row.ended_ms = a_time(record.ended_ms);
    memcpy(row.id, id, ID_SIZE);
    put(&row, sizeof row);
    put(ports, ports_size);
    put(note, row.note);
    return kept;
}

static enum result look(int directory, const char *id)
{
    struct table table = {0};
    scan(&table);
    write_row(directory, id, &table);
    return DONE;
}

/* Return whether the process runs, even if its record denies that. */
static int runs_all_the_same(int directory, const char *id)
{
    struct table table = {0};
    struct record record = {0};
    struct row row;
    scan(&table);
    judge(directory, id, &table, &row, &record);
    free(table.rows);
    return row.state == RUNNING || row.state == PAUSED;
}

/* Wait until the process has ended, or the time is over. While the record says "running", read only that: judge()
 * reads all of /proc. */
static void wait_for_end(int directory, const char *id, int64_t patience_ms)
{
    struct record record = {0};
    int64_t end = now_ms() + patience_ms;
    int kept;
    for (int wait = 2; now_ms() < end; wait = wait < 50 ? wait * 2 : wait) {
        int may_have_ended = !read_record(directory, &record, &kept) || !kept || record.state >= RECORD_ENDED;
        if (may_have_ended && !runs_all_the_same(directory, id))
            return;
        wake_keeper(&record);
        pause_ms(wait);
    }
}

static enum result list(void)
{
    struct table table = {0};
    int left = LISTED_MAX, keepers = 0;
    scan(&table);
    for (size_t i = 0; i < table.count; i++)
        keepers += strncmp(table.rows[i].name, KEEPER_NAME, sizeof KEEPER_NAME - 1) == 0;
    /* Two passes, first over those with a keeper: another process may have created thousands of directories without
     * one, and these must not use up LISTED_MAX. */
    for (size_t i = keepers ? 0 : PLACES; i < 2 * PLACES; i++) {
        int place = open_place(i % PLACES, 0), wants_kept = i < PLACES;
        DIR *entries = place < 0 ? NULL : fdopendir(place);
        for (struct dirent *entry; entries && left > 0 && (entry = readdir(entries));) {
            int is_wanted = is_id(entry->d_name) && (find_keeper(&table, entry->d_name, 1) != 0) == wants_kept;
            int directory = is_wanted ? open_in(place, entry->d_name) : -1;
            if (directory < 0)
                continue;
            keepers -= write_row(directory, entry->d_name, &table);
            close(directory);
            left--;
        }
        if (entries)
            closedir(entries);
    }
    if (keepers > 0) /* some are not listed: their directories may have been removed */
        poke_keepers();
    return DONE;
}

/* --- starting ----------------------------------------------------------------------------------------------------- */

/* Create the process's state in the first place that takes it. Return that place; -1 with the first place's errno. */
static int settle(const char *id, const char *note, int with_input, const struct record *record, struct keeper *own)
{
    int error = 0;
    for (size_t i = 0; i < PLACES; i++) {
        int place = open_place(i, 1);
        if (place >= 0) {
            make_room(place);
            if (make_state(place, id, note, with_input, record, own) == 0)
                return place;
            close(place);
        }
        error = error ? error : errno;
    }
    errno = error;
    return -1;
}

/* Fork the keeper and wait for its report of the start. */
static struct report begin(const struct request *request, struct keeper *own, struct record *record)
{
    struct report report = {.kind = REPORT_FAILED, .value = NO_PROCESS};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        report.detail = errno;
        return report;
    }
    own->report = ends[1];
    pid_t keeper = fork();
    if (keeper == 0)
        keep(request, own, record);
    report.detail = keeper < 0 ? errno : EAGAIN;
    close(ends[1]);
    if (keeper > 0)
        (void)!read(ends[0], &report, sizeof report); /* all of it at once, or nothing if the keeper was killed */
    /* Only the keeper may have the socket and the locked record open: others notice its end by them. */
    close(own->control);
    close(own->record);
    return report;
}

static enum result start(const struct request *asked, char **arguments)
{
    const char *id = arguments[0], *note = arguments[1];
    if (!is_id(id) || strlen(note) > NOTE_MAX)
        return NO_SENSE;
    struct record record = {.state = RECORD_BEGUN, .incarnation = incarnation()};
    struct keeper own;
    int with_input = strcmp(arguments[3], "1") == 0, place = settle(id, note, with_input, &record, &own);
    if (place < 0)
        return refuse(NO_PLACE, 0, errno);
    struct request request = {
        .start = {.flags = START_BOUND | (with_input ? START_INPUT : 0) | (asked->start.flags & START_HOME),
                  .variables = asked->start.variables},
        .user = arguments[2],
        .directory = asked->directory,
        .variables = asked->variables,
        .arguments = arguments + 4,
    };
    struct report report = begin(&request, &own, &record);
    if (report.kind != REPORT_FAILED)
        return look(own.directory, id);
    forget(place, id);
    return refuse(NOT_STARTED, report.value, report.detail);
}

/* --- input and output --------------------------------------------------------------------------------------------- */

/* Answer with output from an offset on; wait for some if there is none. */
static enum result show_log(int directory, const char *id, int stream, int64_t offset, uint64_t most, int64_t patience_ms)
{
    static char buffer[LOG_BUFFER];
    int64_t end = now_ms() + patience_ms, at;
    struct piece piece;
    ssize_t size;
    for (int wait = 2;; wait = wait < 50 ? wait * 2 : wait) {
        piece = (struct piece){.ended = !lives(directory, id)}; /* before the read: output may come between */
        at = offset;
        size = read_log(directory, stream, &at, buffer, most < sizeof buffer ? (size_t)most : sizeof buffer);
        if (size > 0 || piece.ended || now_ms() >= end)
            break;
        pause_ms(wait);
    }
    piece.offset = (uint64_t)at;
    put(&piece, sizeof piece);
    while (size > 0) {
        put(buffer, (size_t)size);
        most -= (uint64_t)size;
        int64_t next = at += size;
        size = read_log(directory, stream, &next, buffer, most < sizeof buffer ? (size_t)most : sizeof buffer);
        if (next != at)
            break; /* the next bytes were dropped in the meantime, and the answer must have no gap */
    }
    return DONE;
}

/* Write to the process's input until `end`. Return how many bytes were taken, or -1 if it reads no more. */
static ssize_t push(int fd, const char *data, size_t size, int64_t end)
{
    size_t taken = 0;
    while (taken < size) {
        ssize_t written = write(fd, data + taken, size - taken);
        if (written > 0) {
            taken += (size_t)written;
            continue;
        }
        if (errno != EAGAIN)
            return -1;
        int64_t left = end - now_ms();
        struct pollfd ready = {.fd = fd, .events = POLLOUT};
        if (left <= 0 || poll(&ready, 1, left > 1 << 30 ? 1 << 30 : (int)left) <= 0)
            break;
    }
    return (ssize_t)taken;
}

/* Pass standard input on to the process, and answer with how many bytes it has taken. The pipe comes from the keeper,
 * whose socket may be forged: so check that it is a pipe. */
static enum result feed(int directory, int64_t patience_ms)
{
    static char buffer[LOG_BUFFER];
    struct stat about;
    uint64_t taken = 0;
    int64_t end = now_ms() + patience_ms;
    int fd = ask_for_input(directory, ANSWER_MS);
    if (fd < 0 || fstat(fd, &about) != 0 || !S_ISFIFO(about.st_mode) || fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        return NO_INPUT;
    for (ssize_t size, pushed; (size = read(0, buffer, sizeof buffer)) > 0; taken += (uint64_t)pushed) {
        pushed = push(fd, buffer, (size_t)size, end);
        if (pushed < 0)
            return NO_INPUT;
        if (pushed < size) {
            taken += (uint64_t)pushed;
            break;
        }
    }
    put(&taken, sizeof taken);
    return DONE;
}

static enum result end_input(int directory)
{
    return tell_keeper(directory, ORDER_CLOSE_INPUT, 0, ANSWER_MS) ? DONE : NO_ANSWER;
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

/* Stop the process and all its descendants, and answer with its row. */
static enum result stop(int directory, const char *id, uint32_t milliseconds)
{
    tell_keeper(directory, ORDER_STOP, milliseconds, (int64_t)milliseconds + KILL_MS);
    if (lives(directory, id))
        poke_keepers(); /* its socket may have been removed or replaced: then the keeper ends by itself */
    for (int64_t end = now_ms() + KILL_MS; now_ms() < end && lives(directory, id);)
        pause_ms(LOOK_MS);
    return look(directory, id);
}

/* Open the directory of a process, and store the place that it is in. Return -1 if there is none. */
static int find(const char *id, int *place)
{
    for (size_t i = 0; i < PLACES; i++) {
        *place = open_place(i, 0);
        int directory = *place < 0 ? -1 : open_in(*place, id);
        if (directory >= 0)
            return directory;
        if (*place >= 0)
            close(*place);
    }
    return -1;
}

void do_without_process(char **arguments)
{
    int place, error = errno, directory = -1;
    if (strcmp(arguments[0], "process") == 0 && arguments[1] && strcmp(arguments[1], "stop") == 0 && arguments[2] &&
        arguments[3])
        directory = find(arguments[2], &place);
    if (directory >= 0) {
        tell_keeper(directory, ORDER_STOP, (uint32_t)strtoll(arguments[3], NULL, 10), 0);
        close(directory);
        close(place);
    }
    errno = error;
}

static enum result remove_one(int place, int directory, const char *id)
{
    if (lives(directory, id))
        return STILL_RUNS;
    return forget(place, id) == 0 ? DONE : refuse(NO_PLACE, 0, errno);
}

/* Carry out one verb. Descriptors are left to the end of the process. */
static enum result act(const struct request *request)
{
    char **arguments = request->arguments + 1;
    size_t count = 0;
    int64_t numbers[4] = {0};
    int place;
    while (arguments[count])
        count++;
    const char *verb = count ? arguments[0] : "", *id = count > 1 ? arguments[1] : "";
    for (size_t i = 0; i < 4 && i + 2 < count; i++)
        numbers[i] = strtoll(arguments[i + 2], NULL, 10);
    if (strcmp(verb, "list") == 0)
        return list();
    if (strcmp(verb, "start") == 0)
        return count > 5 ? start(request, arguments + 1) : NO_SENSE;
    int directory = find(id, &place);
    if (directory < 0) {
        poke_keepers(); /* the process may run although its directory is gone: its keeper then ends it */
        return NO_SUCH;
    }
    if (strcmp(verb, "look") == 0) {
        wait_for_end(directory, id, numbers[0]);
        return look(directory, id);
    }
    if (strcmp(verb, "log") == 0)
        return show_log(directory, id, (int)numbers[0], numbers[1], (uint64_t)numbers[2], numbers[3]);
    if (strcmp(verb, "signal") == 0)
        return tell_keeper(directory, ORDER_SIGNAL, (uint32_t)numbers[0], ANSWER_MS) ? DONE : NO_ANSWER;
    if (strcmp(verb, "stop") == 0)
        return stop(directory, id, (uint32_t)numbers[0]);
    if (strcmp(verb, "input") == 0)
        return feed(directory, numbers[0]);
    if (strcmp(verb, "end-input") == 0)
        return end_input(directory);
    if (strcmp(verb, "remove") == 0)
        return remove_one(place, directory, id);
    return NO_SENSE;
}

int process_main(const struct request *request)
{
    int result = act(request);
    flush();
    return result;
}
