/* podkit's agent: what its parts share.
 *
 *   agent sleep SECONDS|infinity   the container's first process: reaps, and ends with the lifetime
 *   agent channel SECONDS [USER]   behind one exec stream: runs commands that come as frames on standard input; begins as
 *                                  root, and becomes that user
 *
 * A first process whose standard input is a pipe has a channel of its own behind it, so that the host needs no exec.
 *
 * The protocol's other side is podkit/agent/protocol.py; a change on either side needs a new PROTOCOL there and here.
 */
#ifndef PODKIT_AGENT_H
#define PODKIT_AGENT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PROTOCOL 3

/* Header of every frame, little-endian, followed by `length` bytes. */
struct header {
    uint32_t length;
    uint32_t id;     /* of the command, chosen by the host; 0 for the channel itself */
    uint8_t type;
    uint8_t zero[3];
};

#define DATA_MAX 32768u            /* bytes of one frame of output */
#define START_MAX (4u << 20)       /* bytes of the frame that starts a command */
#define INPUT_WINDOW (1u << 20)    /* bytes of input that the host may send before any was taken */
#define INPUT_NOTE (256u << 10)    /* bytes that were taken, and that the host is not told of before there are more */

enum from_host { START = 1, INPUT, SIGNAL, KILL, CREDIT, PING };
enum from_agent { HELLO = 64, STARTED, STDOUT, STDERR, TAKEN, EXIT, FAILED, PONG, BYE };

/* What START begins with. Then, each ended by a NUL: user, directory, `arguments` texts, `variables` texts. */
struct start {
    uint32_t timeout_ms; /* 0: none */
    uint32_t window;     /* bytes of output that may be sent before the host gives more */
    uint32_t flags;
    uint32_t arguments;
    uint32_t variables;
};
#define START_INPUT 1u /* the command gets a pipe to read, else nothing */
#define START_HOME 2u  /* HOME is the user's, unless the variables name it */
#define START_BUILT_IN 4u /* the arguments are for a part of the agent itself, which the first one names */
#define START_OWN_DIRECTORY 8u /* the directory is the container's own: it is made again where it is gone */
#define START_QUIET 16u /* STARTED is not told: nobody waits for it, and each frame wakes five processes */

/* What EXIT holds. */
struct ended {
    uint32_t exit_code; /* 128 + the signal's number where one ended it */
    uint32_t flags;
};
#define ENDED_TIMED_OUT 1u
#define ENDED_OOM 2u       /* the kernel killed something of it for memory */
#define ENDED_SURVIVORS 4u /* not all of its processes could be killed */
#define ENDED_LEFT 16u      /* never in a frame: something that it has started runs on */
#define ENDED_LOST 8u      /* its supervisor was killed: what still runs is not known */

/* Why nothing was run: what FAILED begins with, followed by the system's error number. NO_AGENT: this channel ends, as
 * something inside has taken from it what it needs; another one may do. */
enum failure { NO_USER = 1, NO_DIRECTORY, NO_PROGRAM, NO_PROCESS, NO_AGENT };

/* A request to start a command; the pointers lie in the frame. */
struct request {
    struct start start;
    const char *user, *directory;
    char **arguments, **variables;
};

/* What a supervisor tells the channel, one record each. */
struct report {
    enum { REPORT_STARTED = 1, REPORT_FAILED, REPORT_ENDED } kind;
    int32_t value;  /* the process, the failure, or the status as wait() gives it */
    int32_t detail; /* the system's error number, or ENDED_ flags */
};

/* What the channel tells a supervisor: a signal for the command's process group, or that all of it has to die. */
#define CONTROL_KILL_TREE 0

/* A user as the container's own files name it. */
struct user {
    uid_t uid;
    gid_t gid, groups[64];
    size_t group_count;
    char home[256];
};

int sleep_main(const char *lifetime);
/* Be a channel; `tells_first` whether the first process is this agent, which wants to know of it; `user` whom to become,
 * NULL to stay who this is. */
int channel_main(const char *lifetime, int tells_first, const char *user);

/* How a channel ends that cannot become its user; the host knows these. */
#define NO_SUCH_USER 67
#define NOT_ALLOWED 77
#define IN_WANT 75 /* of open files, memory or processes: another one may do */

/* Background processes; see background.c. The request's user, variables and flags are those of what it starts. */
int process_main(const struct request *request);

/* What is done of a built-in that no process could be made for: a background process that took them all is stopped. */
void do_without_process(char **arguments);

/* Be a part of the agent in the place of a program. Gives the exit code. */
int run_built_in(const struct request *request);
int file_main(char **arguments);

/* Run and watch one command; the process ends with it. */
_Noreturn void supervise(const struct request *request, int control, int in, int out, int err);

/* Find "name", "uid", "name:group" or "uid:gid"; 0, or -1 where there is no such user or group. */
int find_user(const char *text, struct user *found);

/* Start what is asked for as a child that is told of nothing: its standard streams are this process's. 0, or the
 * failure, with the system's error number in errno. */
int start_command(const struct request *request, pid_t *made);
#define START_BOUND 0x10000u /* never in a frame: the program is killed when this process is */

/* Be that user from now on, with `saved` for the third id; whether that could be. */
int become(const struct user *user, uid_t saved);

/* Whom this channel has become, whose home is that of commands that name no user; NULL where it stayed who it was. */
extern const struct user *own_user;

/* A process of the container, as /proc shows it. */
struct process {
    pid_t pid, parent;
    pid_t session;
    char state, kinship; /* kinship: 0 not looked at, 1 a descendant, 2 none */
    char name[16];
};

struct table {
    struct process *rows;
    size_t count, room;
    pid_t ancestor; /* whose descendants the kinships tell */
};

/* Read one process; 0, or -1 where there is none. */
int read_process(pid_t pid, struct process *process);

/* Whether this can be a channel. Its name would say nothing: anybody may take any. */
int is_channel(const struct process *process);

/* Read all processes, sorted; what a former call found is overwritten. 0, or -1 without /proc or memory. */
int scan(struct table *table);

/* Find one of them; NULL where it is not there. */
struct process *find_process(const struct table *table, pid_t pid);

int is_descendant(struct table *table, struct process *process, pid_t ancestor);

/* Send a signal to every descendant of this process. */
void signal_descendants(int number);

/* Kill every descendant of this process, within `milliseconds`; whether none is left. `reap` collects the ended ones
 * and says whether there are children. The caller blocks SIGCHLD. */
int kill_descendants(int milliseconds, int (*reap)(void));

/* Count what runs in this container besides the commands of this channel: those of others, and background processes. */
uint32_t count_others(void);

/* Whether a background process runs, or something that it has started. */
int is_anything_kept(void);

/* Let the keepers of background processes look whether they can still be reached, and go on if somebody stopped them. */
void poke_keepers(void);

/* Whether anything lives that this process has started. */
int has_living_descendants(void);

/* Whether this is the keeper of a background process, also in the moment after its end. */
int is_keeper(pid_t pid);

/* The number of the keeper that a process has, 0 where it has none. Anybody may take its name; nobody else can be taken
 * for it where more is looked at, which takes as long as all the rest. */
pid_t find_keeper(const struct table *table, const char *id, int by_name_alone);
#define KEEPER_NAME "keeper-" /* of the keepers of background processes; the first 8 characters of an id follow */
#define COMMAND_NAME "podkit-command" /* of supervisors, as the kernel shows it */
#define CHANNEL_NAME "podkit-channel"

/* Find the processes of a name; gives how many of them were written to `found`. Anybody may take any name. */
size_t find_named(const char *name, pid_t *found, size_t room);

/* Name a system call that a channel needs and may not make, with the reason in errno; NULL where there is none. */
const char *find_forbidden(void);

/* Keep in mind what this process may use; and see later that it still may, undoing what somebody has changed. Commands
 * inherit it. Root inside may lower any limit of any process, and nobody can undo that. */
void remember_limits(void);
int restore_limits(void);

/* Let no other process change the limits of this one and of its forks: that takes three ids that are its own. Only root
 * may; a program that is run has all three alike again. */
void guard_limits(void);
#define NOBODYS_UID ((uid_t)-2) /* more than podkit lets a command be */

/* Mark this process, and all that it will start, as no part of the agent: nothing inside can take the mark away. */
void mark_as_program(void);

/* Whether a process has no such mark. */
int is_unmarked(pid_t pid);

int64_t now_ms(void);

/* How a channel tells the first process that it is there, and that it has gone after a whole lifetime of idleness. */
#define LIFE_SIGNAL (SIGRTMIN + 1)
enum life { LIFE_HELD = 1, LIFE_OVER };

/* "60" or "infinity" (or "0") in milliseconds, which gives 0 for ever; -1 for what is no number. */
int64_t parse_lifetime(const char *text);

#endif
