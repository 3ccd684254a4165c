#include "records.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

char trail[PATH_MAX];
void (*give_up)(void);

static char out[2 * PIECE_MAX], in[2 * PIECE_MAX];
static size_t out_end, in_begin, in_end;

/* Clean up and exit with failure. */
static _Noreturn void stop(void)
{
    if (give_up)
        give_up();
    _exit(1);
}

void flush_records(void)
{
    for (size_t at = 0; at < out_end;) {
        ssize_t size = write(1, out + at, out_end - at);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0)
            stop(); /* nobody reads the answer */
        at += (size_t)size;
    }
    out_end = 0;
}

char *begin_record(size_t size)
{
    if (sizeof out - out_end < sizeof(struct record_header) + size)
        flush_records();
    return out + out_end + sizeof(struct record_header);
}

void end_record(enum record type, size_t size)
{
    struct record_header header = {.length = (uint32_t)size, .type = (uint8_t)type};
    memcpy(out + out_end, &header, sizeof header);
    out_end += sizeof header + size;
}

static _Noreturn void send_refusal(int32_t number, uint64_t found)
{
    size_t numbers = sizeof number + sizeof found, size = strlen(trail);
    char *place = begin_record(numbers + size);
    memcpy(place, &number, sizeof number);
    memcpy(place + sizeof number, &found, sizeof found);
    memcpy(place + numbers, trail, size);
    end_record(REFUSED, numbers + size);
    flush_records();
    stop();
}

void refuse(int why)
{
    send_refusal(why, 0);
}

void refuse_over(enum refusal limit, uint64_t found)
{
    send_refusal((int32_t)limit, found);
}

/* Read once more into the buffer, after moving the unread rest to its beginning. */
static void read_more(void)
{
    memmove(in, in + in_begin, in_end - in_begin);
    in_end -= in_begin;
    in_begin = 0;
    ssize_t size;
    do
        size = read(0, in + in_end, sizeof in - in_end);
    while (size < 0 && errno == EINTR);
    if (size <= 0)
        refuse(CUT_SHORT); /* the host is gone or has given up: an incomplete file must not appear */
    in_end += (size_t)size;
}

char *take(size_t size)
{
    if (size > sizeof in)
        refuse(EPROTO);
    while (in_end - in_begin < size)
        read_more();
    in_begin += size;
    return in + in_begin - size;
}

size_t take_some(size_t most, char **data)
{
    if (in_begin == in_end)
        read_more();
    size_t size = in_end - in_begin < most ? in_end - in_begin : most;
    *data = in + in_begin;
    in_begin += size;
    return size;
}
