/* The processes of the container, as /proc shows them. */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FEW 16 /* processes in a tree that is walked from child to child */

/* Return the number of threads, field 20 of /proc/PID/stat. `fields` begins at the state, field 3. */
static int thread_count(const char *fields)
{
    for (int i = 0; i < 17; i++) {
        fields = strchr(fields, ' ');
        if (!fields)
            return 0;
        fields++;
    }
    return atoi(fields);
}

int read_process(pid_t pid, struct process *process)
{
    char path[32], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size <= 0)
        return -1;
    text[size] = '\0';
    char *begin = strchr(text, '('), *end = strrchr(text, ')'); /* the last one: the name may hold parentheses */
    if (!begin || !end || end < begin || end[1] != ' ')
        return -1;
    *end = '\0';
    char *at = end + 4;
    *process = (struct process){.pid = pid, .state = end[2], .parent = (pid_t)strtol(at, &at, 10)};
    (void)strtol(at, &at, 10); /* the process group */
    process->session = (pid_t)strtol(at, &at, 10);
    strncpy(process->name, begin + 1, sizeof process->name - 1);
    if (process->state == 'Z' && thread_count(end + 2) > 1)
        process->state = 'S'; /* only its first thread has ended */
    return 0;
}

static int by_pid(const void *a, const void *b)
{
    return ((const struct process *)a)->pid - ((const struct process *)b)->pid;
}

/* Add a row for a process, unless the process is gone. Return 0 if there is no memory. */
static int add_row(struct table *table, pid_t pid)
{
    if (table->count == table->room) {
        size_t room = table->room ? table->room * 2 : 256;
        struct process *rows = realloc(table->rows, room * sizeof *rows);
        if (!rows)
            return 0;
        table->rows = rows;
        table->room = room;
    }
    if (read_process(pid, &table->rows[table->count]) == 0)
        table->count++;
    return 1;
}

static void clear(struct table *table)
{
    table->count = 0;
    table->ancestor = 0;
}

/* Call `take` for each entry of a directory that is named by a number. Return 0; -1 if the directory or a call
 * fails. */
static int each_number(const char *path, int (*take)(void *context, pid_t number), void *context)
{
    DIR *directory = opendir(path);
    int result = 0;
    if (!directory)
        return -1;
    for (struct dirent *entry; result == 0 && (entry = readdir(directory));)
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
            result = take(context, atoi(entry->d_name));
    closedir(directory);
    return result;
}

static int take_process(void *context, pid_t pid)
{
    return add_row(context, pid) ? 0 : -1;
}

int scan(struct table *table)
{
    clear(table);
    if (each_number("/proc", take_process, table) != 0)
        return -1;
    qsort(table->rows, table->count, sizeof *table->rows, by_pid);
    return 0;
}

struct look {
    struct table *table;
    pid_t pid; /* the process that the threads belong to */
};

/* Add the children of one thread to the table. The file holds their pids, separated by spaces. */
static int take_children_of_thread(void *context, pid_t thread)
{
    struct look *look = context;
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)look->pid, (int)thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC), result = 0;
    if (fd < 0)
        /* ENOENT: the thread has ended; but this process's own thread runs, so there the kernel has no such file */
        return errno == ENOENT && look->pid != getpid() ? 0 : -1;
    pid_t child = 0;
    for (ssize_t size; result == 0 && (size = read(fd, text, sizeof text)) > 0;)
        for (ssize_t i = 0; result == 0 && i < size; i++) {
            if (text[i] >= '0' && text[i] <= '9') {
                child = child * 10 + (text[i] - '0');
                continue;
            }
            result = child && !add_row(look->table, child) ? -1 : 0;
            child = 0;
        }
    close(fd);
    return result;
}

/* Read the descendants of this process as scan() does, but without reading all processes of the container. Return
 * -1 if there are more than a few, or the kernel cannot list children. The list may lack some if children start or
 * end during the call, so only scan() proves that none is left. */
static int scan_few_descendants(struct table *table)
{
    char path[32];
    clear(table);
    struct look look = {table, getpid()};
    if (each_number("/proc/self/task", take_children_of_thread, &look) != 0)
        return -1;
    for (size_t i = 0; i < table->count; i++) {
        if (i == FEW)
            return -1;
        look.pid = table->rows[i].pid;
        snprintf(path, sizeof path, "/proc/%d/task", (int)look.pid);
        (void)each_number(path, take_children_of_thread, &look);
    }
    qsort(table->rows, table->count, sizeof *table->rows, by_pid);
    return 0;
}

struct process *find_process(const struct table *table, pid_t pid)
{
    struct process key = {.pid = pid};
    return bsearch(&key, table->rows, table->count, sizeof key, by_pid);
}

int is_descendant(struct table *table, struct process *process, pid_t ancestor)
{
    if (table->ancestor != ancestor)
        for (size_t i = 0; i < table->count; i++)
            table->rows[i].kinship = 0;
    table->ancestor = ancestor;
    /* Walk up to a process whose kinship is known, then store the result in every row on the way. So all rows together
     * take linear time. The limit on steps guards against a cycle, in rows that were read while parents changed. */
    char kinship = 2;
    struct process *at = process;
    for (size_t steps = 0; at && steps <= table->count; steps++) {
        if (at->kinship) {
            kinship = at->kinship;
            break;
        }
        if (at->parent == ancestor) {
            kinship = 1;
            break;
        }
        at = find_process(table, at->parent);
    }
    at = process;
    for (size_t steps = 0; at && !at->kinship && steps <= table->count; steps++) {
        at->kinship = kinship;
        at = at->parent == ancestor ? NULL : find_process(table, at->parent);
    }
    return kinship == 1;
}

struct pids {
    pid_t *list;
    size_t count, room;
};

static int contains(const struct pids *pids, pid_t pid)
{
    for (size_t i = 0; i < pids->count; i++)
        if (pids->list[i] == pid)
            return 1;
    return 0;
}

static void add(struct pids *pids, pid_t pid)
{
    if (pids->count == pids->room) {
        size_t room = pids->room ? pids->room * 2 : 64;
        pid_t *list = realloc(pids->list, room * sizeof *list);
        if (!list)
            return; /* no memory: the next look finds it again and stops it once more */
        pids->list = list;
        pids->room = room;
    }
    pids->list[pids->count++] = pid;
}

/* Stop all descendants: send SIGSTOP until a look finds no new one, or until `end`.
 *
 * Killing them one by one loses the race with a fork bomb. A process with a pending SIGSTOP cannot fork any more,
 * so each look finds fewer new ones. Nothing is reaped until then: zombies count against the limit of processes,
 * which leaves a fork bomb less room. */
static void freeze(struct table *table, struct pids *stopped, int (*look)(struct table *), int64_t end)
{
    pid_t self = getpid();
    size_t found;
    do {
        if (look(table) != 0 && scan(table) != 0)
            return;
        found = 0;
        for (size_t i = 0; i < table->count; i++) {
            struct process *process = &table->rows[i];
            if (process->state == 'Z' || !is_descendant(table, process, self) || contains(stopped, process->pid))
                continue;
            kill(process->pid, SIGSTOP);
            add(stopped, process->pid);
            found++;
        }
    } while (found && now_ms() < end);
}

int kill_descendants(int milliseconds, int (*reap)(void))
{
    int64_t end = now_ms() + milliseconds;
    struct table table = {0};
    struct pids stopped = {0};
    pid_t self = getpid();
    int left;
    /* at least two rounds: on a busy machine, the time may be over before the first one has killed anything */
    for (int round = 0; (left = reap()) && (round < 2 || now_ms() < end); round++) {
        stopped.count = 0;
        /* try the cheap look first: if a thousand commands end at once, reading all of /proc for each takes too long */
        freeze(&table, &stopped, round == 0 ? scan_few_descendants : scan, end);
        for (size_t i = 0; i < table.count; i++)
            if (table.rows[i].state != 'Z' && is_descendant(&table, &table.rows[i], self))
                kill(table.rows[i].pid, SIGKILL);
        sigset_t child;
        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        struct timespec pause = {.tv_nsec = 20000000};
        int64_t round_end = now_ms() + 100; /* then send the signals again, to those that were missed */
        while ((left = reap()) && now_ms() < round_end)
            sigtimedwait(&child, NULL, &pause);
        if (!left)
            break;
    }
    free(table.rows);
    free(stopped.list);
    return !left || !has_living_descendants();
}

void signal_descendants(int number)
{
    struct table table = {0};
    if (scan(&table) == 0)
        for (size_t i = 0; i < table.count; i++)
            if (is_descendant(&table, &table.rows[i], getpid()))
                kill(table.rows[i].pid, number);
    free(table.rows);
}

size_t find_named(const char *name, pid_t *found, size_t room)
{
    struct table table = {0};
    size_t count = 0;
    if (scan(&table) == 0)
        for (size_t i = 0; i < table.count && count < room; i++)
            if (strcmp(table.rows[i].name, name) == 0)
                found[count++] = table.rows[i].pid;
    free(table.rows);
    return count;
}

/* Only the engine can start a process without a parent in here. Of the first process's children, only its own channel
 * is in its session: a command starts a session, and a process cannot join another one. */
int is_channel(const struct process *process)
{
    return process->pid != 1 && (process->parent == 0 || (process->parent == 1 && process->session == 1));
}

/* Return whether this is a supervisor. It stays in its channel's session; a command has left that and cannot return. */
static int is_supervisor(const struct table *table, const struct process *process)
{
    struct process *parent = find_process(table, process->parent);
    return strcmp(process->name, COMMAND_NAME) == 0 && process->state != 'Z' && parent && is_channel(parent) &&
           process->session == parent->session;
}

/* Return whether this is a keeper. Any process can take the name, but only parts of the agent have no mark. */
static int has_name_of_keeper(const struct process *process)
{
    return strncmp(process->name, KEEPER_NAME, sizeof KEEPER_NAME - 1) == 0 && is_unmarked(process->pid);
}

pid_t find_keeper(const struct table *table, const char *id, int by_name_alone)
{
    char name[sizeof table->rows->name];
    snprintf(name, sizeof name, KEEPER_NAME "%.8s", id);
    for (size_t i = 0; i < table->count; i++)
        if (strcmp(table->rows[i].name, name) == 0 && !strchr("ZXx", table->rows[i].state) &&
            (by_name_alone || is_unmarked(table->rows[i].pid)))
            return table->rows[i].pid;
    return 0;
}

int is_keeper(pid_t pid)
{
    struct process process;
    return pid > 1 && read_process(pid, &process) == 0 && has_name_of_keeper(&process);
}

/* Return whether a descendant of a process is alive. Zombies do not count. */
static int has_living(struct table *table, pid_t ancestor)
{
    for (size_t i = 0; i < table->count; i++)
        if (!strchr("ZXx", table->rows[i].state) && is_descendant(table, &table->rows[i], ancestor))
            return 1;
    return 0;
}

int has_living_descendants(void)
{
    struct table table = {0};
    int found = scan(&table) != 0 || has_living(&table, getpid());
    free(table.rows);
    return found;
}

/* Return whether this is a keeper of something that lives. A keeper of nothing is about to end; SIGCONT makes sure
 * that it can, if another process has stopped it. */
static int keeps(struct table *table, const struct process *process)
{
    if (strchr("ZXx", process->state) || !has_name_of_keeper(process))
        return 0;
    kill(process->pid, SIGCONT);
    return has_living(table, process->pid);
}

void poke_keepers(void)
{
    struct table table = {0};
    if (scan(&table) == 0)
        for (size_t i = 0; i < table.count; i++)
            if (has_name_of_keeper(&table.rows[i])) {
                kill(table.rows[i].pid, SIGCONT);
                kill(table.rows[i].pid, SIGCHLD);
            }
    free(table.rows);
}

uint32_t count_others(void)
{
    struct table table = {0};
    uint32_t count = 0;
    if (scan(&table) == 0)
        for (size_t i = 0; i < table.count; i++) {
            struct process *process = &table.rows[i];
            int is_command = is_supervisor(&table, process) && process->parent != getpid();
            count += is_command || keeps(&table, process);
        }
    free(table.rows);
    return count;
}

int is_anything_kept(void)
{
    struct table table = {0};
    int found = 0;
    poke_keepers(); /* a keeper that cannot be reached any more then ends what it keeps */
    if (scan(&table) == 0)
        for (size_t i = 0; i < table.count && !found; i++)
            found = keeps(&table, &table.rows[i]);
    free(table.rows);
    return found;
}
