#include "train/tensorboard.h"

#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "launch/memory.h"

/* ---- protocol buffers: a message is a list of fields, each a tag (number * 8 + wire type) and a value ----
 */

enum { VARINT, FIXED64, BYTES, FIXED32 = 5 };

typedef struct message {
    unsigned char *data;
    size_t used, room;
} message;

static void put(message *m, const void *data, size_t bytes) {
    if (m->used + bytes > m->room) {
        m->room = 2 * (m->used + bytes);
        m->data = mem_grow(m->data, m->room, "a TensorBoard event");
    }
    memcpy(m->data + m->used, data, bytes);
    m->used += bytes;
}

static void put_varint(message *m, uint64_t x) {
    do {
        unsigned char byte = (unsigned char)((x & 127) | (x > 127 ? 128 : 0));
        put(m, &byte, 1);
        x >>= 7;
    } while (x);
}

static void put_tag(message *m, unsigned field, unsigned type) {
    put_varint(m, 8 * field + type);
}

static void put_integer(message *m, unsigned field, int64_t x) {
    put_tag(m, field, VARINT);
    put_varint(m, (uint64_t)x);
}

static void put_double(message *m, unsigned field, double x) {
    put_tag(m, field, FIXED64);
    put(m, &x, sizeof x);
}

static void put_float(message *m, unsigned field, float x) {
    put_tag(m, field, FIXED32);
    put(m, &x, sizeof x);
}

static void put_bytes(message *m, unsigned field, const void *data, size_t bytes) {
    put_tag(m, field, BYTES);
    put_varint(m, bytes);
    put(m, data, bytes);
}

/* ---- the file: records of length, checksum of the length, event, checksum of the event ---- */

/* CRC-32C, turned and shifted so that a checksum of data that holds checksums keeps its strength. */
static uint32_t masked_crc(const void *data, size_t bytes) {
    const unsigned char *p = data;
    uint32_t crc = ~0u;
    for (size_t i = 0; i < bytes; i++) crc = _mm_crc32_u8(crc, p[i]);
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

/* Frees the message. */
static int write_record(tensorboard *t, message *event, error *e) {
    uint64_t length = event->used;
    uint32_t length_crc = masked_crc(&length, sizeof length), data_crc = masked_crc(event->data, length);
    int good = fwrite(&length, sizeof length, 1, t->file) == 1 &&
               fwrite(&length_crc, sizeof length_crc, 1, t->file) == 1 &&
               fwrite(event->data, length, 1, t->file) == 1 &&
               fwrite(&data_crc, sizeof data_crc, 1, t->file) == 1 && !fflush(t->file);
    mem_free(event->data);
    return good ? 0 : error_set(e, EXIT_IO, "%s: %s", t->path, strerror(errno));
}

/* Event: 1 wall_time, 2 step, 3 file_version, 5 summary, 7 session_log. */
static message event_at(int64_t step) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    message m = {0};
    put_double(&m, 1, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    put_integer(&m, 2, step);
    return m;
}

static int create(tensorboard *t, const char *run_dir) {
    char path[4096];
    snprintf(path, sizeof path, "%s/tensorboard", run_dir);
    int fd = -1, i = 0;
    /* readers take the files in the order of their names; two starts within a second differ in the last part
     */
    if (!mkdir(path, 0777) || errno == EEXIST) do {
            snprintf(path, sizeof path, "%s/tensorboard/events.out.tfevents.%010lld.%d", run_dir,
                     (long long)time(NULL), i++);
            fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        } while (fd < 0 && errno == EEXIST);
    t->path = mem_string(path);
    t->file = fd < 0 ? NULL : fdopen(fd, "w");
    return t->file ? 0 : -1;
}

int tensorboard_open(tensorboard *t, const char *run_dir, int64_t step, error *e) {
    static const char version[] = "brain.Event:2";
    *t = (tensorboard){0};
    if (create(t, run_dir)) {
        error_set(e, EXIT_IO, "%s: %s", t->path, strerror(errno));
        tensorboard_close(t);
        return e->code;
    }
    message first = event_at(0);
    put_bytes(&first, 3, version, strlen(version));
    if (write_record(t, &first, e)) return e->code;

    enum { SESSION_STATUS = 1, SESSION_START = 1 };
    message start = event_at(step + 1), session = {0}; /* steps from here on are this file's */
    put_integer(&session, SESSION_STATUS, SESSION_START);
    put_bytes(&start, 7, session.data, session.used);
    mem_free(session.data);
    return write_record(t, &start, e);
}

/* Summary.Value: 1 tag, 2 simple_value; Summary: 1 value, repeated. */
static void put_scalar(message *summary, const char *tag, const json_t *number) {
    message value = {0};
    put_bytes(&value, 1, tag, strlen(tag));
    put_float(&value, 2, (float)json_number_value(number));
    put_bytes(summary, 1, value.data, value.used);
    mem_free(value.data);
}

static void put_numbers(message *summary, const char *group, const json_t *row) {
    const char *key;
    json_t *value, *element;
    size_t i;
    char tag[512];
    json_object_foreach((json_t *)row, key, value) {
        snprintf(tag, sizeof tag, "%s/%s", group, key);
        if (json_is_number(value) && strcmp(key, "step")) put_scalar(summary, tag, value);
        if (json_is_object(value)) put_numbers(summary, tag, value);
        json_array_foreach(value, i, element) {
            snprintf(tag, sizeof tag, "%s/%02zu", key, i);
            if (json_is_number(element)) put_scalar(summary, tag, element);
        }
    }
}

int tensorboard_row(tensorboard *t, const char *group, const json_t *row, error *e) {
    message event = event_at(json_integer_value(json_object_get(row, "step"))), summary = {0};
    put_numbers(&summary, group, row);
    put_bytes(&event, 5, summary.data, summary.used);
    mem_free(summary.data);
    return write_record(t, &event, e);
}

void tensorboard_close(tensorboard *t) {
    if (t->file) fclose(t->file);
    mem_free(t->path);
    *t = (tensorboard){0};
}
