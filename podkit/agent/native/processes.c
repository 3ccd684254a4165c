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

#define FEW 16

/* The 18th field from the state on. */
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
    char *begin = strchr(text, '('), *end = strrchr(text, ')'); /* the name may hold anything */
    if (!begin || !end || end < begin || end[1] != ' ')
        return -1;
    *end = '\0';
    char *at = end + 4;
    *process = (struct process){.pid = pid, .state = end[2], .parent = (pid_t)strtol(at, &at, 10)};
    (void)strtol(at, &at, 10); /* the process group */
    process->session = (pid_t)strtol(at, &at, 10);
    strncpy(process->name, begin + 1, sizeof process->name - 1);
    if (process->state == 'Z' && thread_count(end + 2) > 1)
        process->state = 'S'; /* its first thread has ended, others live */
    return 0;
}

static int by_pid(const void *a, const void *b)
{
    return ((const struct process *)a)->pid - ((const struct process *)b)->pid;
}

/* Read one process into the next row. Whether there is memory for it: a process that has gone needs none. */
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

/* Call `take` for each number that is the name of an entry; 0, or -1 where it fails or the directory cannot be read. */
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
    pid_t pid; /* of the process whose threads are looked at */
};

static int take_children_of_thread(void *context, pid_t thread)
{
    struct look *look = context;
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)look->pid, (int)thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC), result = 0;
    if (fd < 0)
        return errno == ENOENT && look->pid != getpid() ? 0 : -1; /* the thread has ended; or the kernel has no such file */
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

/* As `scan`, with the descendants of this process alone, and without a look at any other; -1 where there are more than a
 * few. Of processes that come and go meanwhile the kernel may leave some out. */
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
    /* walk up until something is known, then write it on all that was passed */
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
            return; /* stopped once more, the next time */
        pids->list = list;
        pids->room = room;
    }
    pids->list[pids->count++] = pid;
}

/* Stop descendants until a look finds none that is new: whoever has a stop pending cannot fork any more. Nothing is
 * reaped meanwhile, so that in a fork storm even the dead hold their places under the limit of processes. */
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
    /* two rounds at least: on a busy machine all the time may have passed before anything was killed */
    for (int round = 0; (left = reap()) && (round < 2 || now_ms() < end); round++) {
        stopped.count = 0;
        /* first what costs no look at every process of the container: a thousand commands may end at once */
        freeze(&table, &stopped, round == 0 ? scan_few_descendants : scan, end);
        for (size_t i = 0; i < table.count; i++)
            if (table.rows[i].state != 'Z' && is_descendant(&table, &table.rows[i], self))
                kill(table.rows[i].pid, SIGKILL);
        sigset_t child;
        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        struct timespec pause = {.tv_nsec = 20000000};
        int64_t round_end = now_ms() + 100;
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

/* Only what the engine has put here has no parent. Of the children of the first process its channel alone is in its
 * session: a command begins one of its own, and cannot come back. */
int is_channel(const struct process *process)
{
    return process->pid != 1 && (process->parent == 0 || (process->parent == 1 && process->session == 1));
}

/* A supervisor stays in its channel's session; what a command starts can neither stay nor come back. */
static int is_supervisor(const struct table *table, const struct process *process)
{
    struct process *parent = find_process(table, process->parent);
    return strcmp(process->name, COMMAND_NAME) == 0 && process->state != 'Z' && parent && is_channel(parent) &&
           process->session == parent->session;
}

/* Anybody may take the name, but only a part of the agent has no mark. */
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

/* Whether a process lives that has this one as ancestor. What is dead and cannot be reaped does not count. */
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

/* A keeper that has nothing left is about to end: so it is, once one that somebody has stopped goes on. */
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
    poke_keepers(); /* one whose directory was taken away ends what it keeps */
    if (scan(&table) == 0)
        for (size_t i = 0; i < table.count && !found; i++)
            found = keeps(&table, &table.rows[i]);
    free(table.rows);
    return found;
}
