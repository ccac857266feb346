/* Memory that both the host and the device of this build may use in place. */
#ifndef CARACAL_TESTS_EMULATE_BLOCK_H
#define CARACAL_TESTS_EMULATE_BLOCK_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif
void *block_alloc(size_t bytes);
void block_free(void *p);
#ifdef __cplusplus
}
#endif

#endif
