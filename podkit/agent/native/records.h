/* Records: how the built-in for files and the host talk. The other side is podkit/agent/file_records.py.
 *
 *   ENTRY    struct entry, then a path relative to the one that was asked for ("" for that itself) and the text of a
 *            symlink, each ended by a NUL
 *   DATA     bytes of the file that the last ENTRY began
 *   END      that file is complete
 *   DONE     success; the last record
 *   REFUSED  a 32-bit number (the system's error number or one of `enum refusal`), a 64-bit number (the amount that is
 *            over a limit, else 0), then the relative path; the last record
 *
 * Each begins with a header, little-endian.
 */
#ifndef PODKIT_AGENT_RECORDS_H
#define PODKIT_AGENT_RECORDS_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

enum record { ENTRY = 1, DATA, END, DONE, REFUSED };
enum refusal { NOT_REGULAR = 1001, TOO_LARGE, TOO_MANY, CUT_SHORT, NO_PARENT };

struct record_header {
    uint32_t length; /* of the content that follows */
    uint8_t type, zero[3];
};

struct entry {
    uint64_t size;
    int64_t seconds; /* mtime, since 1970 */
    uint32_t nanoseconds, mode, uid, gid;
};
#define KEEP_MODE 0xffffffffu /* in place of a mode: that of the replaced file, or 0666 minus the umask */

#define PIECE_MAX (64u << 10) /* most bytes of a DATA record to the host */

/* The current path, relative to the one that was asked for; REFUSED sends it. */
extern char trail[PATH_MAX];

/* Called, if set, before the process ends by a refusal or because nobody reads its answer. */
extern void (*give_up)(void);

/* Return room for the content of a record, at most `size` bytes. end_record() completes it, or it is dropped by the
 * next begin_record(). flush_records() sends all complete records. */
char *begin_record(size_t size);
void end_record(enum record type, size_t size);
void flush_records(void);

/* Send REFUSED with an error number or enum refusal and with `trail`, and end the process. */
_Noreturn void refuse(int why);
_Noreturn void refuse_over(enum refusal limit, uint64_t found);

/* Wait for exactly `size` bytes of input. They stay valid until the next call. Refuses at the end of the input. */
char *take(size_t size);

/* Wait for any input. Return how many bytes there are, at most `most`; they stay valid until the next call. */
size_t take_some(size_t most, char **data);

#endif
