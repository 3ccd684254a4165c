/* What files.c and file_writes.c share. Each function refuses on failure, see records.h. */
#ifndef PODKIT_AGENT_FILES_H
#define PODKIT_AGENT_FILES_H

#include <sys/types.h>

/* Open a directory with O_PATH; create it and its parents if they are missing. The caller closes it. `path` is
 * changed for a while. */
int open_directory(int at, char *path);

/* Create the missing parent directories of a path. `path` is changed for a while. */
void make_parents(char *path);

/* Create a directory; with `may_exist`, an existing one is fine. */
void make_directory(int at, const char *path, mode_t mode, int may_exist);

/* Read records from standard input, and create at `path` what they describe. */
void put_files(char *path);

#endif
