/* What is said of a message that is not what was sent: which word, and both its values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "launch/digest.h"
#include "launch/message.h"

/* The last `bytes` of a page behind which nothing may be read. */
static unsigned char *at_the_edge(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    assert_int_equal(mprotect(p + page, page, PROT_NONE), 0);
    return p + page - bytes;
}

static void check(unsigned char *text, int bytes, int byte, const char *says) {
    uint64_t digest;
    error e = {0};
    message m = {.bytes = bytes, .is_receive = 1, .data = text, .digest = &digest};
    digest_of(&digest, text, (size_t)bytes);
    assert_int_equal(message_damaged(&m, 3, &e), 0);
    text[byte] ^= 4;
    assert_int_equal(message_damaged(&m, 3, &e), 1);
    assert_int_equal(e.code, EXIT_SDC);
    assert_string_equal(e.text, says);
    text[byte] ^= 4;
}

static void test_one_bit(void **state) {
    (void)state;
    unsigned char *text = at_the_edge(7);
    memcpy(text, "abcdefg", 7);
    check(text, 7, 1, "in 7 bytes from rank 3, word 0 was sent as 0x64636261 and came as 0x64636661");
    /* a text ends in part of a word */
    check(text, 7, 6, "in 7 bytes from rank 3, word 1 was sent as 0x00676665 and came as 0x00636665");
    check(text + 6, 1, 0, "in 1 bytes from rank 3, word 0 was sent as 0x00000067 and came as 0x00000063");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_bit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
