/* The agent's entry point: chooses the role of this process. See agent.h for the roles. */
#include "agent.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t parse_lifetime(const char *text)
{
    char *end;
    if (strcmp(text, "infinity") == 0)
        return 0;
    long long seconds = strtoll(text, &end, 10);
    if (*text == '\0' || *end != '\0' || seconds < 0)
        return -1;
    return seconds > INT64_MAX / 2000 ? 0 : seconds * 1000; /* too large for the clock: no end */
}

int run_built_in(const struct request *request)
{
    if (strcmp(request->arguments[0], "file") == 0)
        return file_main(request->arguments);
    if (strcmp(request->arguments[0], "process") == 0)
        return process_main(request);
    return 64;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "sleep") == 0)
        return sleep_main(argv[2]);
    if ((argc == 3 || argc == 4) && strcmp(argv[1], "channel") == 0)
        return channel_main(argv[2], getppid() == 0, argv[3]); /* parent 0: an exec in a container */
    static const char usage[] = "usage: agent sleep SECONDS|infinity | agent channel SECONDS [USER]\n";
    (void)!write(2, usage, sizeof usage - 1);
    return 64;
}
