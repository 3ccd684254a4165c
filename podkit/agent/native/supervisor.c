/* One command and all that it starts: whatever its processes do, they stay descendants of this one, which can therefore
 * kill them all. */
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

#define CONTROL 3 /* where the control socket is, once all else is closed */
#define KILL_MS 1000
#define ASK_MS 100
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

extern char **environ;

static pid_t command;
static int command_status, command_ended, saw_kill, is_built_in;

static void on_signal(int number)
{
    (void)number;
}

static void close_from(int first)
{
    if (syscall(SYS_close_range, first, ~0u, 0) == 0)
        return;
    for (int fd = first; fd < 65536; fd++)
        close(fd);
}

/* Tell the channel; whether there is one. */
static int tell(int kind, int value, int detail)
{
    struct report report = {.kind = kind, .value = value, .detail = detail};
    return send(CONTROL, &report, sizeof report, MSG_NOSIGNAL) == (ssize_t)sizeof report;
}

static _Noreturn void fail(enum failure failure, int error)
{
    tell(REPORT_FAILED, failure, error);
    _exit(0);
}

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

/* --- the environment ------------------------------------------------------------------------------------------- */

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

/* --- the command's process --------------------------------------------------------------------------------------- */

static volatile int failed_step, failed_error; /* written by the child, which shares this memory until it is another program */

int become(const struct user *user, uid_t saved)
{
    /* the system calls themselves: the library's functions do more, and this memory is shared */
    return syscall(SYS_setgroups, user->group_count, user->groups) == 0 &&
           syscall(SYS_setresgid, user->gid, user->gid, user->gid) == 0 &&
           syscall(SYS_setresuid, user->uid, user->uid, saved) == 0;
}

static int change_directory(const char *directory)
{
    char there[PATH_MAX];
    if (chdir(directory) != 0)
        return 0;
    /* a directory outside of the container's root has no path inside: nothing runs there */
    if (syscall(SYS_getcwd, there, sizeof there) > 0 && there[0] != '/') {
        errno = EACCES;
        return 0;
    }
    return 1;
}

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
            strcpy(path + size + (size > 0), name); /* an empty place is the directory itself */
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

/* What the child does before it becomes another program, or a part of this one. */
static int settle_in(const struct request *request, const struct user *user)
{
    sigset_t none;
    sigemptyset(&none);
    setsid();
    if (!(request->start.flags & START_BUILT_IN)) { /* else it is a part of the agent, which only SIGKILL ends */
        sigprocmask(SIG_SETMASK, &none, NULL);
        mark_as_program();
    }
    failed_step = NO_USER;
    if (user && !become(user, user->uid))
        return 0;
    if (request->start.flags & START_BOUND)
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* after becoming another user, which undoes it */
    failed_step = NO_DIRECTORY;
    if (request->start.flags & START_BUILT_IN) /* its user may be root, and the directory named by somebody else's link */
        return chdir("/") == 0;
    return *request->directory == '\0' || change_directory(request->directory);
}

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
        close(CONTROL);
        _exit(run_built_in(request));
    }
    return 0;
}

/* Let the user open the streams anew, as /dev/stdout: to the kernel a pipe is a file of whoever made it. */
static void hand_over_pipes(const struct user *user, int with_input)
{
    struct stat about;
    for (int fd = with_input ? 0 : 1; fd <= 2; fd++) /* an empty input may be that of other users, too */
        if (fstat(fd, &about) == 0 && S_ISFIFO(about.st_mode))
            (void)!fchown(fd, user->uid, user->gid);
}

/* Make the container's working directory where it is missing, for whoever the command's user is. This may be root, and
 * the place somebody else's: so no symlink on the way is followed, and what is there is never changed. */
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
    else if (errno == ENOSYS && geteuid() != 0) /* a kernel before 5.6 */
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

/* --- watching it --------------------------------------------------------------------------------------------------- */

/* Let a part of the agent tidy up what it has begun. */
static void ask_to_end(void)
{
    struct timespec patience = {.tv_nsec = ASK_MS * 1000000};
    sigset_t all_but_child;
    sigfillset(&all_but_child);
    sigdelset(&all_but_child, SIGCHLD);
    kill(command, SIGTERM);
    ppoll(NULL, 0, &patience, &all_but_child); /* its end interrupts this */
    reap();
}

static _Noreturn void kill_all(int why)
{
    const struct timespec stay = {.tv_sec = 10};
    if (is_built_in && !command_ended)
        ask_to_end();
    if (!command_ended)
        kill(-command, SIGSTOP); /* most of a fork bomb with one call, before the search for the rest needs time */
    int none_left = kill_descendants(KILL_MS, reap);
    if (!tell(REPORT_ENDED, command_ended ? command_status : SIGKILL, why | (none_left ? 0 : ENDED_SURVIVORS)) && !none_left)
        ppoll(NULL, 0, &stay, NULL); /* without a channel, only the first process can end what is left: it sees this one */
    _exit(!none_left);
}

/* The time until a deadline; whether there is any. */
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
        kill_all(0); /* the channel is gone: nobody will ever hear of this command */
    if (size != 1)
        return;
    if (number == CONTROL_KILL_TREE)
        kill_all(0);
    if (kill(-command, number) != 0)
        kill(command, number);
}

_Noreturn void supervise(const struct request *request, int control, int in, int out, int err)
{
    int64_t deadline = request->start.timeout_ms ? now_ms() + 1 + request->start.timeout_ms : 0; /* never too early */
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0 || dup2(control, CONTROL) < 0)
        _exit(1);
    close_from(CONTROL + 1);
    fcntl(CONTROL, F_SETFD, FD_CLOEXEC);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* that it may be one, the channel has seen */
    prctl(PR_SET_NAME, COMMAND_NAME);

    sigset_t all, all_but_child;
    sigfillset(&all); /* a command that signals every process of its user does not end what watches it */
    sigprocmask(SIG_SETMASK, &all, NULL);
    all_but_child = all;
    sigdelset(&all_but_child, SIGCHLD);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGCHLD, &action, NULL);

    is_built_in = (request->start.flags & START_BUILT_IN) != 0;
    int failure = start_command(request, &command);
    if (failure)
        fail(failure, errno);
    close(0);
    close(1);
    close(2);
    if (!(request->start.flags & START_QUIET))
        tell(REPORT_STARTED, command, 0);

    struct pollfd control_events = {.fd = CONTROL, .events = POLLIN};
    for (;;) {
        struct timespec wait;
        int others = reap();
        if (command_ended) {
            /* perhaps out of memory: the channel knows the counter */
            tell(REPORT_ENDED, command_status, (saw_kill ? ENDED_OOM : 0) | (others ? ENDED_LEFT : 0));
            _exit(0);
        }
        if (deadline && time_left(deadline, &wait) == 0)
            kill_all(ENDED_TIMED_OUT);
        int ready = ppoll(&control_events, 1, deadline ? &wait : NULL, &all_but_child);
        int deaf = ready < 0 && errno == EINVAL; /* somebody has lowered the limit of its open files */
        if (deaf) {
            struct timespec pause = {.tv_nsec = 20000000};
            ppoll(NULL, 0, &pause, &all_but_child);
        }
        if (ready > 0 || deaf)
            obey();
    }
}
