/* What the parts of background processes share: keepers (keeper.c), what is asked of them (background.c), their
 * directories (process_directories.c), what they print (logs.c) and what they listen on (ports.c).
 *
 * Each process has a directory of its own, which only the agent's user may enter:
 *
 *   note       what podkit wants to know again, as it came
 *   record     struct record, written in place: a full disk cannot keep its end from being written; locked as long as
 *              its keeper lives, however that ends
 *   control    the socket of its keeper
 *   1.* 2.*    what it printed
 */
#ifndef PODKIT_BACKGROUND_H
#define PODKIT_BACKGROUND_H

#include "agent.h"

#include <sys/un.h>

#define ID_SIZE 36
#define PLACES 3
#define LOG_BUFFER (64u << 10)

enum record_state { RECORD_BEGUN = 1, RECORD_ENDED, RECORD_FINISHED }; /* finished: nothing that it started is left */

/* The state comes first: whoever reads that it has ended reads the rest as it was written before. */
struct record {
    uint32_t state;
    uint32_t exit_code; /* 128 + the signal's number where one ended it */
    uint32_t pid;       /* 0 until it runs */
    uint32_t keeper;
    int64_t began_ms, ended_ms; /* since 1970 */
    uint64_t incarnation; /* of the container: when its first process began */
};

/* What a keeper is told, and sends back once it is done; a STOP is answered by the end of the connection. */
struct order {
    enum { ORDER_SIGNAL = 1, ORDER_CLOSE_INPUT, ORDER_GIVE_INPUT, ORDER_STOP } kind;
    uint32_t value; /* the signal, or how many milliseconds the process has before it is killed */
};

/* What a keeper begins with; -1 for what there is not. */
struct keeper {
    const char *id;
    int directory, record, control;
    int input[2]; /* a pipe */
    int report;   /* where it says how the start went: a struct report */
};

/* Start the process, and keep it until nothing of it is left. */
_Noreturn void keep(const struct request *request, const struct keeper *own, struct record *record);

/* Open one of the places, made where `make` says so; -1 where that cannot be, or where it is somebody else's. */
int open_place(size_t index, int make);

int is_id(const char *name);

/* Open the directory of a process, or a regular file in it. */
int open_in(int place, const char *id);
int open_file(int directory, const char *name);

/* Read the beginning of a file; gives its size, 0 where there is none. */
size_t read_file(int directory, const char *name, void *data, size_t size);

/* Make the directory of a process, and what its keeper begins with; -1 where this place has no room for it. */
int make_state(int place, const char *id, const char *note, int with_input, const struct record *record,
               struct keeper *own);

/* Remove the directory of a process: it holds files and nothing else. */
int forget(int place, const char *name);

/* Forget those that have ended first, so that what is remembered stays bounded. */
void make_room(int place);

struct sockaddr_un control_of(int directory);

/* Whether the keeper lives, as far as the lock on the record says it: whoever may write there may replace that. */
int is_kept(int directory);

/* Read the record, and whether its keeper lives, which was found out before; 0 where it cannot be read. */
int read_record(int directory, struct record *found, int *is_kept);

/* Let a keeper go on that somebody has stopped; for any other process that is harmless too. */
void wake_keeper(const struct record *found);

/* Wait until the keeper has done what it is told, or, after a STOP, until it has ended; whether that was in time. */
int tell_keeper(int directory, int kind, uint32_t value, int64_t patience_ms);

/* Get the end of its input that takes data, without waiting; -1 where it has none or does not answer in time. */
int ask_for_input(int directory, int64_t patience_ms);

/* A stream of what a process prints: its pipe, which is always drained, and the file that it goes to. */
struct log {
    int directory, stream, pipe, file;
    uint64_t older, begin, end; /* where the last file but one, the last one, and the next byte begin */
};

void open_log(struct log *log, int directory, int stream, int pipe);

/* Take what is in the pipe, `most` bytes of it. */
void drain_log(struct log *log, size_t most);

/* Read at an offset, which moves on where that is not kept any more; a negative one counts from the end. */
ssize_t read_log(int directory, int stream, int64_t *offset, char *buffer, size_t size);

/* The TCP ports that any of the processes listens on, sorted; -1 where not all of them can be looked at. */
int find_ports(const pid_t *pids, size_t count, uint16_t *ports, size_t room);

#endif
