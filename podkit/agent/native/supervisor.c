/* The supervisor of one command: starts it, watches it, and kills its whole process tree.
 *
 * A supervisor is a subreaper: orphans of the command, after setsid or a double fork too, are reparented to it. Every
 * process of the command therefore stays its descendant, and can be found and killed.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONTROL 3 /* the control socket, after everything above it is closed */
#define KILL_MS 1000 /* to kill the process tree */
#define ASK_MS 100   /* for a built-in to clean up after SIGTERM */
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

extern char **environ;

static pid_t command;
static int command_status, command_ended, saw_kill, is_built_in; /* saw_kill: a process in the tree died of SIGKILL */

/* Do nothing: SIGCHLD interrupts ppoll() only if it has a handler. */
static void on_signal(int number)
{
    (void)number;
}

/* Close every descriptor from `first` on. A supervisor never calls exec, so close-on-exec does not help: its copy of
 * another command's input pipe would keep that command from ever seeing end of file. */
static void close_from(int first)
{
    if (syscall(SYS_close_range, first, ~0u, 0) == 0)
        return;
    for (int fd = first; fd < 65536; fd++)
        close(fd);
}

/* Send a report to the channel. Return 0 if the channel is gone. */
static int tell(int kind, int value, int detail)
{
    struct report report = {.kind = kind, .value = value, .detail = detail};
    return send(CONTROL, &report, sizeof report, MSG_NOSIGNAL) == (ssize_t)sizeof report;
}

/* Report that the command was not started, and exit. The status is 0: no process of the command is left. */
static _Noreturn void fail(enum failure failure, int error)
{
    tell(REPORT_FAILED, failure, error);
    _exit(0);
}

/* Reap every child that has ended, adopted orphans included. Return whether there are children left. */
static int reap(void)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        saw_kill = saw_kill || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        if (pid == command) {
            command_status = status;
            command_ended = 1;
        }
    }
    return pid == 0 || errno != ECHILD;
}

/* --- the environment ---------------------------------------------------------------------------------------------- */

static size_t name_size(const char *variable)
{
    return strcspn(variable, "=");
}

static void set_variable(char **list, size_t *count, char *variable)
{
    size_t size = name_size(variable) + 1;
    for (size_t i = 0; i < *count; i++)
        if (strncmp(list[i], variable, size) == 0) {
            list[i] = variable;
            return;
        }
    list[(*count)++] = variable;
    list[*count] = NULL;
}

/* Build the command's environment: inherited variables, then HOME, then the request's variables; the last one wins.
 * Return NULL if there is no memory. Never freed: a supervisor and a keeper start one command each. */
static char **make_environment(const struct request *request, const struct user *user)
{
    static char home[sizeof user->home + 5] = "HOME=";
    size_t inherited = 0, count = 0;
    while (environ[inherited])
        inherited++;
    char **list = calloc(inherited + request->start.variables + 2, sizeof *list);
    if (!list)
        return NULL;
    for (size_t i = 0; i < inherited; i++)
        set_variable(list, &count, environ[i]);
    if (user && request->start.flags & START_HOME) {
        strcpy(home + 5, user->home);
        set_variable(list, &count, home);
    }
    for (size_t i = 0; i < request->start.variables; i++)
        set_variable(list, &count, request->variables[i]);
    return list;
}

/* --- the command's process ---------------------------------------------------------------------------------------- */

/* Written by the vfork() child, which shares this memory until it calls exec. */
static volatile int failed_step, failed_error;

int become(const struct user *user, uid_t saved)
{
    /* Raw system calls: libc's wrappers do more, and a vfork() child shares its parent's memory.
     * The user id is last, because the other two calls need root. */
    return syscall(SYS_setgroups, user->group_count, user->groups) == 0 &&
           syscall(SYS_setresgid, user->gid, user->gid, user->gid) == 0 &&
           syscall(SYS_setresuid, user->uid, user->uid, saved) == 0;
}

/* Change the working directory. Return 0 on failure, with errno set. */
static int change_directory(const char *directory)
{
    char there[PATH_MAX];
    if (chdir(directory) != 0)
        return 0;
    /* outside the container's root, the kernel's path has no leading slash: no command runs there */
    if (syscall(SYS_getcwd, there, sizeof there) > 0 && there[0] != '/') {
        errno = EACCES;
        return 0;
    }
    return 1;
}

/* Replace this process with the program; search for it in the command's own PATH, not in the agent's. This returns
 * only on failure, with errno set: ENOENT only if no directory gave a better reason, such as EACCES. */
static void run_program(char **arguments, char **environment)
{
    char path[PATH_MAX];
    const char *name = arguments[0], *places = DEFAULT_PATH;
    if (strchr(name, '/')) {
        execve(name, arguments, environment);
        return;
    }
    for (char **variable = environment; *variable; variable++)
        if (strncmp(*variable, "PATH=", 5) == 0)
            places = *variable + 5;
    int error = ENOENT;
    for (;;) {
        size_t size = strcspn(places, ":");
        if (size + strlen(name) + 2 <= sizeof path) {
            memcpy(path, places, size);
            strcpy(path + size, "/");
            strcpy(path + size + (size > 0), name); /* an empty entry in PATH is the working directory */
            execve(path, arguments, environment);
            if (errno != ENOENT && errno != ENOTDIR)
                error = errno;
        }
        if (places[size] == '\0')
            break;
        places += size + 1;
    }
    errno = error;
}

/* Prepare the child for its program or its built-in. Return 0 on failure, with failed_step and errno set. */
static int settle_in(const struct request *request, const struct user *user)
{
    sigset_t none;
    sigemptyset(&none);
    setsid(); /* its own process group, for signals; and no way back into the channel's session */
    if (!(request->start.flags & START_BUILT_IN)) { /* a built-in keeps all signals blocked, but for SIGKILL */
        sigprocmask(SIG_SETMASK, &none, NULL);
        mark_as_program();
    }
    failed_step = NO_USER;
    if (user && !become(user, user->uid))
        return 0;
    if (request->start.flags & START_BOUND)
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* after become(): a change of user clears it */
    failed_step = NO_DIRECTORY;
    if (request->start.flags & START_BUILT_IN) /* may be root, and the directory may be another user's symlink */
        return chdir("/") == 0;
    return *request->directory == '\0' || change_directory(request->directory);
}

/* Start a program. Return 0, or the failure with errno set. vfork() returns only after the child's exec or _exit, so
 * failed_step and failed_error are final by then. */
static int start_program(const struct request *request, const struct user *user, char **environment, pid_t *made)
{
    *made = environment ? vfork() : -1;
    if (*made < 0)
        return NO_PROCESS;
    if (*made == 0) {
        if (settle_in(request, user)) {
            failed_step = NO_PROGRAM;
            run_program(request->arguments, environment);
        }
        failed_error = errno;
        _exit(127);
    }
    errno = failed_error;
    return failed_error ? failed_step : 0;
}

/* Fork a built-in. Return 0, or the failure; the child itself reports a failure of settle_in(). */
static int start_built_in(const struct request *request, const struct user *user, pid_t *made)
{
    *made = fork();
    if (*made < 0) {
        do_without_process(request->arguments);
        return NO_PROCESS;
    }
    if (*made == 0) {
        if (!settle_in(request, user))
            fail(failed_step, errno);
        close(CONTROL); /* else the channel would not see the end of a killed supervisor */
        _exit(run_built_in(request));
    }
    return 0;
}

/* Make the command's user the owner of its pipes. A pipe belongs to its creator, and others cannot open /dev/stdout. */
static void hand_over_pipes(const struct user *user, int with_input)
{
    struct stat about;
    for (int fd = with_input ? 0 : 1; fd <= 2; fd++) /* the empty input may be shared with other users' commands */
        if (fstat(fd, &about) == 0 && S_ISFIFO(about.st_mode))
            (void)!fchown(fd, user->uid, user->gid);
}

/* Create the container's working directory if it is missing, open to every user. Errors are left to chdir().
 *
 * This process may be root, and a parent directory another user's. An attacker could put a symlink there, so no symlink
 * on the path is followed, and an existing directory keeps its mode. */
static void make_directory(const char *directory)
{
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
    char parent[PATH_MAX];
    const char *name = strrchr(directory, '/');
    if (!name || (size_t)(name - directory) >= sizeof parent - 1)
        return;
    memcpy(parent, directory, (size_t)(name - directory) + 1);
    parent[name - directory + 1] = '\0';
    mode_t mask = umask(0);
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, parent, &how, sizeof how);
    if (fd >= 0)
        (void)!mkdirat(fd, name + 1, 0777);
    else if (errno == ENOSYS && geteuid() != 0) /* before Linux 5.6; mkdir() follows symlinks, so never as root */
        (void)!mkdir(directory, 0777);
    umask(mask);
    if (fd >= 0)
        close(fd);
}

int start_command(const struct request *request, pid_t *made)
{
    struct user user;
    int named = *request->user != '\0';
    if (named && find_user(request->user, &user) != 0) {
        errno = ENOENT;
        return NO_USER;
    }
    const struct user *other = named && (user.uid != getuid() || user.gid != getgid()) ? &user : NULL;
    if (other)
        hand_over_pipes(other, (request->start.flags & START_INPUT) != 0);
    if (request->start.flags & START_OWN_DIRECTORY)
        make_directory(request->directory);
    if (request->start.flags & START_BUILT_IN)
        return start_built_in(request, other, made);
    return start_program(request, other, make_environment(request, named ? &user : own_user), made);
}

/* --- watching it -------------------------------------------------------------------------------------------------- */

/* Ask a built-in to clean up, for example to remove a temporary file, and wait up to ASK_MS for its end. */
static void ask_to_end(void)
{
    struct timespec patience = {.tv_nsec = ASK_MS * 1000000};
    sigset_t all_but_child;
    sigfillset(&all_but_child);
    sigdelset(&all_but_child, SIGCHLD);
    kill(command, SIGTERM);
    ppoll(NULL, 0, &patience, &all_but_child); /* SIGCHLD interrupts this */
    reap();
}

/* Kill the whole process tree, report it with `why` (ENDED_ flags), and exit: with 0 if no process is left. */
static _Noreturn void kill_all(int why)
{
    const struct timespec stay = {.tv_sec = 10};
    if (is_built_in && !command_ended)
        ask_to_end();
    if (!command_ended)
        kill(-command, SIGSTOP); /* stops most of a fork bomb at once; the search in /proc takes longer */
    int none_left = kill_descendants(KILL_MS, reap);
    if (!tell(REPORT_ENDED, command_ended ? command_status : SIGKILL, why | (none_left ? 0 : ENDED_SURVIVORS)) && !none_left)
        /* No channel: only the first process can end the survivors. It does so if it still sees this supervisor after
         * GRACE_MS, so stay longer than that. */
        ppoll(NULL, 0, &stay, NULL);
    _exit(!none_left);
}

/* Compute the time until a deadline. Return 0 if it has passed. */
static int time_left(int64_t deadline, struct timespec *left)
{
    int64_t milliseconds = deadline - now_ms();
    left->tv_sec = milliseconds / 1000;
    left->tv_nsec = milliseconds % 1000 * 1000000;
    return milliseconds > 0;
}

static void obey(void)
{
    unsigned char number;
    ssize_t size = recv(CONTROL, &number, 1, MSG_DONTWAIT);
    if (size == 0)
        kill_all(0); /* the channel is gone, and nobody can get this command's result */
    if (size != 1)
        return;
    if (number == CONTROL_KILL_TREE)
        kill_all(0);
    if (kill(-command, number) != 0) /* a built-in that has not called setsid() yet leads no group */
        kill(command, number);
}

_Noreturn void supervise(const struct request *request, int control, int in, int out, int err)
{
    /* 1 ms more, because now_ms() rounds down: a timeout never comes too early */
    int64_t deadline = request->start.timeout_ms ? now_ms() + 1 + request->start.timeout_ms : 0;
    /* CONTROL last: its number may be that of one of the others */
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0 || dup2(control, CONTROL) < 0)
        _exit(1);
    close_from(CONTROL + 1);
    fcntl(CONTROL, F_SETFD, FD_CLOEXEC); /* the program must not write reports */
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* the channel's prepare() has found that it works */
    prctl(PR_SET_NAME, COMMAND_NAME);

    sigset_t all, all_but_child;
    sigfillset(&all); /* a command's kill(-1, ...) must not end its supervisor */
    sigprocmask(SIG_SETMASK, &all, NULL);
    all_but_child = all;
    sigdelset(&all_but_child, SIGCHLD);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGCHLD, &action, NULL);

    is_built_in = (request->start.flags & START_BUILT_IN) != 0;
    int failure = start_command(request, &command);
    if (failure)
        fail(failure, errno);
    /* the channel sees the end of a stream only when nobody else has it open */
    close(0);
    close(1);
    close(2);
    if (!(request->start.flags & START_QUIET))
        tell(REPORT_STARTED, command, 0);

    struct pollfd control_events = {.fd = CONTROL, .events = POLLIN};
    for (;;) {
        struct timespec wait;
        int others = reap(); /* before the deadline is checked: a command that ended in time has not timed out */
        if (command_ended) {
            /* SIGKILL may have been the OOM killer's: the channel compares the cgroup's counter. Descendants that are
             * left live on, reparented to the channel. */
            tell(REPORT_ENDED, command_status, (saw_kill ? ENDED_OOM : 0) | (others ? ENDED_LEFT : 0));
            _exit(0);
        }
        if (deadline && time_left(deadline, &wait) == 0)
            kill_all(ENDED_TIMED_OUT);
        /* SIGCHLD is unblocked only during ppoll(), so no end of a child is missed between reap() and here */
        int ready = ppoll(&control_events, 1, deadline ? &wait : NULL, &all_but_child);
        /* another process has lowered RLIMIT_NOFILE to 0, so ppoll() takes no descriptor: look every 20 ms instead */
        int deaf = ready < 0 && errno == EINVAL;
        if (deaf) {
            struct timespec pause = {.tv_nsec = 20000000};
            ppoll(NULL, 0, &pause, &all_but_child);
        }
        if (ready > 0 || deaf)
            obey();
    }
}
