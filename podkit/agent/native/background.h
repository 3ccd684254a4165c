/* Declarations for background processes: keepers (keeper.c), the host's requests (background.c), directories
 * (process_directories.c), output (logs.c) and ports (ports.c).
 *
 * Each process has a directory, which only the agent's user may enter:
 *
 *   note       a text that podkit stores, byte for byte
 *   record     struct record; written in place, so that a full disk cannot stop the end from being recorded; the keeper
 *              holds a lock on it, which the kernel drops with the keeper, even if that is killed
 *   control    the keeper's socket
 *   1.* 2.*    the output, see logs.c
 */
#ifndef PODKIT_BACKGROUND_H
#define PODKIT_BACKGROUND_H

#include "agent.h"

#include <sys/un.h>

#define ID_SIZE 36
#define PLACES 3
#define LOG_BUFFER (64u << 10)

enum record_state { RECORD_BEGUN = 1, RECORD_ENDED, RECORD_FINISHED }; /* finished: no descendant is left, either */

/* The keeper writes the state last: a reader who sees that the process has ended finds the rest complete. */
struct record {
    uint32_t state;
    uint32_t exit_code; /* 128 + the signal's number if a signal ended it */
    uint32_t pid;       /* 0 until it runs */
    uint32_t keeper;    /* the keeper's pid */
    int64_t began_ms, ended_ms; /* since 1970 */
    uint64_t incarnation; /* when the container's first process began: differs after a restart */
};

/* A message to a keeper. It sends the same back once that is done, but answers STOP by closing the connection. */
struct order {
    enum { ORDER_SIGNAL = 1, ORDER_CLOSE_INPUT, ORDER_GIVE_INPUT, ORDER_STOP } kind;
    uint32_t value; /* the signal, or the milliseconds from SIGTERM to SIGKILL */
};

/* The descriptors that a new keeper starts with; -1 if absent. */
struct keeper {
    const char *id;
    int directory, record, control;
    int input[2]; /* a pipe */
    int report;   /* a pipe: the keeper writes a struct report of the start to it */
};

/* Start the process and keep it until no descendant is left; then exit. */
_Noreturn void keep(const struct request *request, const struct keeper *own, struct record *record);

/* Open one of the places, and with `make` create it first. Return a descriptor, or -1 with errno set: EPERM if another
 * user owns it or may enter it. */
int open_place(size_t index, int make);

int is_id(const char *name);

/* Open the directory of a process, or a regular file in it. Return a descriptor, or -1. */
int open_in(int place, const char *id);
int open_file(int directory, const char *name);

/* Read the beginning of a file. Return how many bytes were read, 0 if it cannot be read. */
size_t read_file(int directory, const char *name, void *data, size_t size);

/* Create the directory of a process and all that its keeper starts with. Return 0; on failure -1 with errno set, and
 * nothing is left behind. */
int make_state(int place, const char *id, const char *note, int with_input, const struct record *record,
               struct keeper *own);

/* Remove the directory of a process and the files in it. Return 0, or -1 on failure. */
int forget(int place, const char *name);

/* Forget the processes that ended first, so that their number stays bounded. */
void make_room(int place);

/* Return the address of a keeper's socket. */
struct sockaddr_un control_of(int directory);

/* Return whether the keeper lives, by the lock on the record. Any process that may write in the directory can forge
 * that. */
int is_kept(int directory);

/* Check whether the keeper lives, then read the record. Return 0 if the record cannot be read. */
int read_record(int directory, struct record *found, int *is_kept);

/* Send SIGCONT to the keeper, which another process may have stopped. Does nothing if the pid is no keeper's. */
void wake_keeper(const struct record *found);

/* Send an order and wait until it is done, which for STOP is the keeper's end. Return 0 if that was not in time. */
int tell_keeper(int directory, int kind, uint32_t value, int64_t patience_ms);

/* Get the write end of the process's input, which does not block. Return -1 if there is none or no answer in time; the
 * caller closes it. */
int ask_for_input(int directory, int64_t patience_ms);

/* One stream of a process's output: the pipe, which is always drained, and the file that its content goes to. */
struct log {
    int directory, stream, pipe, file;
    uint64_t older, begin, end; /* the offsets of the last file but one, of the last one, and of the next byte */
};

void open_log(struct log *log, int directory, int stream, int pipe);

/* Move at most `most` bytes from the pipe to the file, without blocking; close the pipe at its end. */
void drain_log(struct log *log, size_t most);

/* Read a stream at an offset. A negative offset counts from the end. If the offset was dropped, read from the first
 * byte that is kept. Store the offset that was used, and return how many bytes were read: 0 or less if there are
 * none. */
ssize_t read_log(int directory, int stream, int64_t *offset, char *buffer, size_t size);

/* Find the TCP ports that any of the processes listens on, sorted. Return how many, or -1 if not all of the
 * processes can be looked at. */
int find_ports(const pid_t *pids, size_t count, uint16_t *ports, size_t room);

#endif
