/* What the two parts for files share: files.c, and file_writes.c for what comes into the container. */
#ifndef PODKIT_AGENT_FILES_H
#define PODKIT_AGENT_FILES_H

#include <sys/types.h>

/* Open a directory; it and those above it are made where they are missing. `path` is changed meanwhile. */
int open_directory(int at, char *path);

/* Make what is missing above it. `path` is changed meanwhile. */
void make_parents(char *path);

/* Make a directory; where one `may_exist`, that is as good. */
void make_directory(int at, const char *path, mode_t mode, int may_exist);

/* Take records, and make what they say at `path`. */
void put_files(char *path);

#endif
