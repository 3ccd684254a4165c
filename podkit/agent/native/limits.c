/* The resource limits of this process, which others of the same user may change. */
#include "agent.h"

#include <sys/resource.h>

static struct rlimit limits[RLIM_NLIMITS];

void remember_limits(void)
{
    for (int i = 0; i < RLIM_NLIMITS; i++)
        getrlimit(i, &limits[i]);
}

int restore_limits(void)
{
    struct rlimit now;
    for (int i = 0; i < RLIM_NLIMITS; i++)
        if (getrlimit(i, &now) != 0 ||
            ((now.rlim_cur != limits[i].rlim_cur || now.rlim_max != limits[i].rlim_max) && setrlimit(i, &limits[i]) != 0))
            return 0;
    return 1;
}
