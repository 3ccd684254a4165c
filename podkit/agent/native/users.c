/* Users and groups, from the container's /etc/passwd and /etc/group. Both files are hostile input: reads are bounded,
 * and what cannot be parsed is skipped. */
#include "agent.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (256 << 10)

/* Read the first FILE_MAX bytes of a regular file. Return NULL on failure; the caller frees the text. */
static char *read_whole(const char *path)
{
    struct stat about;
    /* O_NONBLOCK: it may be a FIFO, which would block open() */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return NULL;
    char *text = NULL;
    if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && (text = malloc(FILE_MAX + 1))) {
        size_t size = 0;
        ssize_t more;
        while (size < FILE_MAX && (more = read(fd, text + size, FILE_MAX - size)) > 0)
            size += (size_t)more;
        text[size] = '\0';
    }
    close(fd);
    return text;
}

/* Split the next line into fields, in place; missing ones are empty. Return 0 at the end of the text. */
static int next_line(char **text, char *fields[], size_t count)
{
    static char none[] = "";
    char *line = *text, *end = strchr(line, '\n');
    if (*line == '\0')
        return 0;
    *text = end ? end + 1 : line + strlen(line);
    if (end)
        *end = '\0';
    for (size_t i = 0; i < count; i++) {
        fields[i] = line ? line : none;
        if (line && (line = strchr(line, ':')))
            *line++ = '\0';
    }
    return 1;
}

/* Parse a decimal user or group id. Return 0, or -1 if the text is not one. */
static int parse_id(const char *text, uint32_t *id)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || value > 0x7fffffff)
        return -1;
    *id = (uint32_t)value;
    return 0;
}

/* Return whether a comma-separated list holds the name. */
static int is_listed(const char *list, const char *name)
{
    size_t size = strlen(name);
    for (const char *entry = list; *name && (entry = strstr(entry, name)); entry += size)
        if ((entry == list || entry[-1] == ',') && (entry[size] == ',' || entry[size] == '\0'))
            return 1;
    return 0;
}

int find_user(const char *text, struct user *found)
{
    char copy[256], name[256], *fields[6], *line;
    if (strlen(text) >= sizeof copy)
        return -1;
    strcpy(copy, text);
    char *group = strchr(copy, ':');
    if (group)
        *group++ = '\0';
    strcpy(name, copy);
    strcpy(found->home, "/"); /* home and group of an id that /etc/passwd does not know */
    found->gid = 0;
    found->group_count = 0;
    int by_number = parse_id(copy, &found->uid) == 0, known = 0, group_known = 0;
    uint32_t id;

    char *users = read_whole("/etc/passwd"), *groups = read_whole("/etc/group");
    for (line = users; line && !known && next_line(&line, fields, 6);) {
        if (parse_id(fields[2], &id) != 0 || (by_number ? id != found->uid : strcmp(fields[0], copy) != 0))
            continue;
        known = 1;
        found->uid = id;
        parse_id(fields[3], &found->gid);
        if (*fields[5] && strlen(fields[5]) < sizeof found->home)
            strcpy(found->home, fields[5]);
        if (strlen(fields[0]) < sizeof name)
            strcpy(name, fields[0]);
    }
    if (group) {
        group_known = parse_id(group, &found->gid) == 0;
        for (line = groups; line && !group_known && next_line(&line, fields, 4);)
            group_known = strcmp(fields[0], group) == 0 && parse_id(fields[2], &found->gid) == 0;
    } else { /* supplementary groups, unless a group was named */
        for (line = groups; line && known && found->group_count < 64 && next_line(&line, fields, 4);)
            if (is_listed(fields[3], name) && parse_id(fields[2], &id) == 0)
                found->groups[found->group_count++] = id;
    }
    free(users);
    free(groups);
    return (known || by_number) && (group_known || !group) ? 0 : -1;
}
