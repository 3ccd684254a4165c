/* podkit's agent: declarations that its parts share.
 *
 *   agent sleep SECONDS|infinity   the container's first process: reaps orphans, and ends when the lifetime is over
 *   agent channel SECONDS [USER]   one exec stream: runs commands that arrive as frames on standard input; with USER it
 *                                  starts as root and becomes that user
 *
 * If the first process's standard input is a pipe, it forks a channel for it, and the host needs no exec.
 *
 * The other side of the protocol is podkit/agent/protocol.py. A change on either side needs a new PROTOCOL on both.
 */
#ifndef PODKIT_AGENT_H
#define PODKIT_AGENT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PROTOCOL 3

/* The header of every frame, little-endian; `length` bytes follow. */
struct header {
    uint32_t length;
    uint32_t id;     /* the command's, chosen by the host; 0 for the channel itself */
    uint8_t type;
    uint8_t zero[3];
};

#define DATA_MAX 32768u            /* most bytes in one frame of output */
#define START_MAX (4u << 20)       /* most bytes in any frame from the host; START is the largest */
#define INPUT_WINDOW (1u << 20)    /* most bytes of input that the host may send ahead of what the command has taken */
#define INPUT_NOTE (256u << 10)    /* bytes of input that the command takes before TAKEN reports them */

enum from_host { START = 1, INPUT, SIGNAL, KILL, CREDIT, PING };
enum from_agent { HELLO = 64, STARTED, STDOUT, STDERR, TAKEN, EXIT, FAILED, PONG, BYE };

/* The beginning of START. Then follow, each ended by a NUL: user, directory, `arguments` texts, `variables` texts. */
struct start {
    uint32_t timeout_ms; /* 0: none */
    uint32_t window;     /* credit window: bytes of output that may be sent before the host sends CREDIT for more */
    uint32_t flags;
    uint32_t arguments;
    uint32_t variables;
};
#define START_INPUT 1u /* standard input is a pipe, else empty */
#define START_HOME 2u  /* set HOME to the user's, unless the variables set it */
#define START_BUILT_IN 4u /* run a built-in of the agent, which the first argument names */
#define START_OWN_DIRECTORY 8u /* the directory is the container's working directory: create it if it is missing */
#define START_QUIET 16u /* do not send STARTED: nobody waits for it, and each frame wakes five processes */

/* The content of EXIT. */
struct ended {
    uint32_t exit_code; /* 128 + the signal's number if a signal ended it */
    uint32_t flags;
};
#define ENDED_TIMED_OUT 1u
#define ENDED_OOM 2u       /* the OOM killer has killed a process of the command */
#define ENDED_SURVIVORS 4u /* not all of its processes could be killed */
#define ENDED_LEFT 16u      /* never in a frame: descendants of it run on */
#define ENDED_LOST 8u      /* its supervisor was killed, so it is not known whether any of its processes still run */

/* Why nothing was run: FAILED holds this and the system's error number. NO_AGENT: this channel ends, because a process
 * inside has taken resources that it needs; another channel may work. */
enum failure { NO_USER = 1, NO_DIRECTORY, NO_PROGRAM, NO_PROCESS, NO_AGENT };

/* A request to start a command. The texts point into the frame. */
struct request {
    struct start start;
    const char *user, *directory;
    char **arguments, **variables;
};

/* A message from a supervisor to its channel. */
struct report {
    enum { REPORT_STARTED = 1, REPORT_FAILED, REPORT_ENDED } kind;
    int32_t value;  /* the pid, the enum failure, or the status of wait() */
    int32_t detail; /* nothing, the system's error number, or ENDED_ flags */
};

/* A message from a channel to a supervisor is one byte: a signal for the command's process group, or this. */
#define CONTROL_KILL_TREE 0

/* A user as the container's /etc/passwd and /etc/group describe it. */
struct user {
    uid_t uid;
    gid_t gid, groups[64];
    size_t group_count;
    char home[256];
};

/* Be the container's first process. Return the exit code. */
int sleep_main(const char *lifetime);

/* Be a channel. `tells_first`: the first process is this agent, so send it LIFE_SIGNAL. `user`: the user to become;
 * NULL keeps the current one. Returns only for a bad lifetime. */
int channel_main(const char *lifetime, int tells_first, const char *user);

/* Exit codes of a channel before HELLO; the host knows these. */
#define NO_SUCH_USER 67
#define NOT_ALLOWED 77 /* to become its user */
#define IN_WANT 75     /* of descriptors, memory or processes: another channel may work */

/* Run a built-in for background processes, see background.c. Return the exit code. The request's variables, directory
 * and START_HOME are for the process that it starts. */
int process_main(const struct request *request);

/* Handle a built-in for which fork() failed. Background processes may have used up all processes, so stopping one has
 * to work without a new one. Keeps errno. */
void do_without_process(char **arguments);

/* Run a built-in in the place of a program. Return the exit code. */
int run_built_in(const struct request *request);
int file_main(char **arguments);

/* Start a command and watch it; this process ends when the command does. */
_Noreturn void supervise(const struct request *request, int control, int in, int out, int err);

/* Find "name", "uid", "name:group" or "uid:gid". Return 0, or -1 if there is no such user or group. */
int find_user(const char *text, struct user *found);

/* Start a command as a child with this process's standard streams. Return 0 and its pid, or the enum failure, with the
 * system's error number in errno. */
int start_command(const struct request *request, pid_t *made);
#define START_BOUND 0x10000u /* never in a frame: kill the program when this process dies */

/* Become a user, with `saved` as the saved user id. Return 0 on failure, with errno set. */
int become(const struct user *user, uid_t saved);

/* The user that this channel has become: the HOME of commands without a user is this one's. NULL if it has not
 * changed its user. */
extern const struct user *own_user;

/* A process of the container, as /proc shows it. */
struct process {
    pid_t pid, parent;
    pid_t session;
    char state, kinship; /* kinship with table.ancestor: 0 not known yet, 1 a descendant, 2 none */
    char name[16];
};

struct table {
    struct process *rows;
    size_t count, room;
    pid_t ancestor; /* the process that all kinships refer to */
};

/* Read one process from /proc. Return 0, or -1 if there is none. */
int read_process(pid_t pid, struct process *process);

/* Return whether this can be a channel, by its parent and session: any process can take its name. */
int is_channel(const struct process *process);

/* Read all processes, sorted by pid; overwrites the rows of an earlier call. Return 0, or -1 without /proc or
 * memory. The caller frees table->rows in either case. */
int scan(struct table *table);

/* Find a process in the table; NULL if it is not there. */
struct process *find_process(const struct table *table, pid_t pid);

int is_descendant(struct table *table, struct process *process, pid_t ancestor);

/* Send a signal to every descendant of this process. */
void signal_descendants(int number);

/* Kill every descendant of this process. Return 0 if some are left after about `milliseconds`. `reap` has to reap all
 * zombies and return whether there are children left. The caller blocks SIGCHLD. */
int kill_descendants(int milliseconds, int (*reap)(void));

/* Count the commands of other channels and the background processes in this container. */
uint32_t count_others(void);

/* Return whether a background process runs, or a descendant of one. Wakes keepers that were stopped. */
int is_anything_kept(void);

/* Wake all keepers that were stopped, and let each check that it can still be reached. */
void poke_keepers(void);

/* Return whether a descendant of this process is alive. */
int has_living_descendants(void);

/* Return whether this is the keeper of a background process, or its zombie. */
int is_keeper(pid_t pid);

/* Return the pid of the keeper of a background process, 0 if there is none. Any process can take a keeper's name. The
 * check of its mark is reliable, but takes as long as all the rest; `by_name_alone` leaves it out. */
pid_t find_keeper(const struct table *table, const char *id, int by_name_alone);
#define KEEPER_NAME "keeper-" /* the names of keepers begin so; the first 8 characters of an id follow */
#define COMMAND_NAME "podkit-command" /* the name of supervisors */
#define CHANNEL_NAME "podkit-channel"

/* Find processes by name, which any process can take. Return how many were stored in `found`, at most `room`. */
size_t find_named(const char *name, pid_t *found, size_t room);

/* Return the name of a system call that a channel needs and is not allowed to make, with the reason in errno; NULL if
 * there is none. */
const char *find_forbidden(void);

/* Remember this process's resource limits, which commands inherit, and restore what another process has changed.
 * Root inside can lower any hard limit, and that cannot be undone: then restore_limits() returns 0. */
void remember_limits(void);
int restore_limits(void);

/* Stop other processes from changing the limits of this one and its forks, by a saved user id that nobody else has.
 * Only root can do this. An exec ends the protection: it sets the saved user id to the effective one. */
void guard_limits(void);
#define NOBODYS_UID ((uid_t)-2) /* larger than any user id that podkit accepts for a command */

/* Mark this process and its future descendants as programs, not parts of the agent. Nothing inside can undo it. */
void mark_as_program(void);

/* Return whether a process has no such mark. */
int is_unmarked(pid_t pid);

int64_t now_ms(void);

/* A channel sends this to the first process, with LIFE_HELD when it is there and LIFE_OVER when it exits after a whole
 * lifetime without a command. */
#define LIFE_SIGNAL (SIGRTMIN + 1)
enum life { LIFE_HELD = 1, LIFE_OVER };

/* Parse "60" or "infinity" into milliseconds. Return 0 for no end ("infinity" or "0"), -1 if it is not a number. */
int64_t parse_lifetime(const char *text);

#endif
