/* TensorBoard's event files, read back by a reader that shares nothing with the writer: a bitwise CRC-32C,
 * and just enough of protocol buffers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "train/tensorboard.h"

typedef struct bytes {
    const unsigned char *p, *end;
} bytes;

static uint32_t crc_bitwise(const unsigned char *p, size_t n) {
    uint32_t crc = 0xffffffff;
    while (n--) {
        crc ^= *p++;
        for (int i = 0; i < 8; i++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return ~crc;
}

static void check_crc(const unsigned char *data, size_t n, const unsigned char *stored) {
    uint32_t masked, crc = crc_bitwise(data, n);
    memcpy(&masked, stored, sizeof masked);
    masked -= 0xa282ead8;
    assert_int_equal(masked >> 17 | masked << 15, crc);
}

static uint64_t varint(bytes *b) {
    uint64_t x = 0;
    for (int shift = 0;; shift += 7) {
        assert_true(b->p < b->end && shift < 64);
        x |= (uint64_t)(*b->p & 127) << shift;
        if (*b->p++ < 128) return x;
    }
}

/* The next field: its number; *value is its payload (a varint's 8 bytes, a fixed number, a string). */
static int field(bytes *b, bytes *value, uint64_t *number) {
    uint64_t tag = varint(b), n = tag % 8 == 1 ? 8 : tag % 8 == 5 ? 4 : 0;
    *number = 0;
    if (tag % 8 == 0) *number = varint(b);
    if (tag % 8 == 2) n = varint(b);
    assert_true(n <= (uint64_t)(b->end - b->p));
    *value = (bytes){b->p, b->p + n};
    b->p += n;
    return (int)(tag / 8);
}

/* "TAG=VALUE;" of each scalar. */
static void print_summary(FILE *out, bytes summary) {
    uint64_t number;
    while (summary.p < summary.end) {
        bytes value, part;
        assert_int_equal(field(&summary, &value, &number), 1);
        while (value.p < value.end) {
            float x;
            if (field(&value, &part, &number) == 1) {
                fprintf(out, "%.*s", (int)(part.end - part.p), part.p);
            } else {
                assert_int_equal(part.end - part.p, 4);
                memcpy(&x, part.p, 4);
                fprintf(out, "=%g;", (double)x);
            }
        }
    }
}

/* One line an event: what it holds, without the time. */
static void print_events(FILE *out, bytes file) {
    while (file.p < file.end) {
        uint64_t length, number;
        assert_true(file.end - file.p >= 16);
        memcpy(&length, file.p, 8);
        check_crc(file.p, 8, file.p + 8);
        assert_true(length <= (uint64_t)(file.end - file.p) - 16);
        bytes event = {file.p + 12, file.p + 12 + length}, value;
        check_crc(event.p, length, event.end);
        file.p = event.end + 4;
        while (event.p < event.end) {
            int what = field(&event, &value, &number);
            if (what == 2) fprintf(out, "step %d ", (int)number);
            if (what == 3) fprintf(out, "%.*s", (int)(value.end - value.p), value.p);
            if (what == 5) print_summary(out, value);
            if (what == 7) fprintf(out, field(&value, &value, &number) == 1 && number == 1 ? "start" : "?");
        }
        fputc('\n', out);
    }
}

/* All files of a run in the order of their names, as text. */
static char *read_all(const char *run) {
    char directory[256], path[1024], *text;
    size_t size;
    struct dirent **name;
    FILE *out = open_memstream(&text, &size);
    snprintf(directory, sizeof directory, "%s/tensorboard", run);
    int files = scandir(directory, &name, NULL, alphasort);
    for (int i = 0; i < files; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, name[i]->d_name);
        free(name[i]);
        if (strstr(path, "tfevents")) {
            FILE *f = fopen(path, "rb");
            unsigned char *data = malloc(1 << 16);
            size_t n = fread(data, 1, 1 << 16, f);
            print_events(out, (bytes){data, data + n});
            fclose(f);
            free(data);
            unlink(path);
        }
    }
    free(name);
    fclose(out);
    rmdir(directory);
    return text;
}

static void rows_come_back(void **unused) {
    (void)unused;
    char run[] = "/tmp/caracal-board-XXXXXX";
    error e;
    tensorboard t;
    assert_non_null(mkdtemp(run));
    assert_int_equal(tensorboard_open(&t, run, 0, &e), 0);
    json_t *row = json_pack("{s:i, s:f, s:n, s:s, s:[f, n, f]}", "step", 1, "loss", 2.5, "lr", "loss_hex",
                            "0x1p+1", "load", 1.5, -2e-20);
    assert_int_equal(tensorboard_row(&t, "metrics", row, &e), 0);
    json_decref(row);
    row = json_pack("{s:i, s:{s:f, s:f}}", "step", 300, "loss", "english", 5.25, "total", 4.0);
    assert_int_equal(tensorboard_row(&t, "eval", row, &e), 0);
    json_decref(row);
    tensorboard_close(&t);

    /* the run is resumed at once, from step 200: a second file, which says from where it counts */
    assert_int_equal(tensorboard_open(&t, run, 200, &e), 0);
    tensorboard_close(&t);

    char *text = read_all(run);
    assert_string_equal(text, "step 0 brain.Event:2\n"
                              "step 1 start\n"
                              "step 1 metrics/loss=2.5;load/00=1.5;load/02=-2e-20;\n"
                              "step 300 eval/loss/english=5.25;eval/loss/total=4;\n"
                              "step 0 brain.Event:2\n"
                              "step 201 start\n");
    free(text);
    rmdir(run);
}

static void no_directory_is_an_error(void **unused) {
    (void)unused;
    error e;
    tensorboard t;
    assert_int_equal(tensorboard_open(&t, "/nonexistent/run", 0, &e), EXIT_IO);
    assert_non_null(strstr(e.text, "/nonexistent/run/tensorboard"));
}

/* Descriptor 0 is one like any other, where a run was started without standard input. */
static void without_standard_input(void **unused) {
    (void)unused;
    char run[] = "/tmp/caracal-board-XXXXXX";
    error e;
    tensorboard t;
    assert_non_null(mkdtemp(run));
    int kept = dup(STDIN_FILENO);
    close(STDIN_FILENO);
    assert_int_equal(tensorboard_open(&t, run, 0, &e), 0);
    assert_int_equal(fileno(t.file), STDIN_FILENO);
    tensorboard_close(&t);
    dup2(kept, STDIN_FILENO);
    close(kept);
    free(read_all(run));
    rmdir(run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_back),
        cmocka_unit_test(no_directory_is_an_error),
        cmocka_unit_test(without_standard_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
