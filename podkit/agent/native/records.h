/* What a built-in part for files says to the host and hears of it: records. podkit/agent/file_records.py is the other side.
 *
 *   ENTRY    struct entry, then a path below the one that was asked for ("" for that itself) and the text of a link,
 *            each ended by a NUL
 *   DATA     bytes of the file that the last ENTRY began
 *   END      that file is complete
 *   DONE     all went well; the last record
 *   REFUSED  a number of 32 bits (the system's error number or one of `enum refusal`), one of 64 bits (what was found
 *            to be over a limit, else 0), then the path below; the last
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
    uint32_t length; /* of what follows */
    uint8_t type, zero[3];
};

struct entry {
    uint64_t size;
    int64_t seconds; /* of the last change of its content, since 1970 */
    uint32_t nanoseconds, mode, uid, gid;
};
#define KEEP_MODE 0xffffffffu /* in place of a mode: the replaced file's, or what the umask leaves of 0666 */

#define PIECE_MAX (64u << 10) /* bytes of one DATA record that goes out */

/* Where below the path that was asked for this is now. */
extern char trail[PATH_MAX];

/* Called before the process ends without an answer, or with a refusal; also by a signal. */
extern void (*give_up)(void);

/* Room for a record of at most `size` bytes; `end_record` makes it one, `flush_records` sends what there is. */
char *begin_record(size_t size);
void end_record(enum record type, size_t size);
void flush_records(void);

/* Send REFUSED with `trail`, and end the process. */
_Noreturn void refuse(int why);
_Noreturn void refuse_over(enum refusal limit, uint64_t found);

/* Wait for so many bytes of input; they stay valid until the next call. A host that has gone is a refusal. */
char *take(size_t size);

/* Wait for some input; gives how much there is, at most `most` bytes. */
size_t take_some(size_t most, char **data);

#endif
