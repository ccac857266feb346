#include "train/hosts.h"

#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "launch/files.h"
#include "launch/host.h"
#include "launch/memory.h"
#include "train/inputs.h"

typedef struct digests {
    uint64_t config, tokenizer, tokens;
} digests;

static uint64_t digest_of_config(const config *c) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out || config_write(c, out) || fclose(out)) FAULT(EXIT_NO_MEMORY, "no memory for a config's text");
    uint64_t digest = XXH3_64bits(text, size);
    mem_free(text);
    return digest;
}

static uint64_t digest_of_json(const json_t *value) {
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    uint64_t digest = text ? XXH3_64bits(text, strlen(text)) : 0;
    mem_free(text);
    return digest;
}

/* "rank 3", and its host where there are several. */
static void name_rank(comm *world, char text[HOST_TEXT]) {
    comm *host = comm_host(world);
    host_name_rank(world, host, text);
    comm_free(host);
}

int hosts_read_alike(comm *world, const config *c, const json_t *inputs, error *e) {
    const char *other = NULL;
    digests mine = {digest_of_config(c), digest_of_json(json_object_get(inputs, INPUTS_TOKENIZER)),
                    digest_of_json(json_object_get(inputs, INPUTS_DATA))},
            first = mine;
    char rank[HOST_TEXT];
    comm_broadcast(world, "what rank 0 has read", &first, sizeof first, 0);
    name_rank(world, rank);
    if (mine.config != first.config) other = "another config";
    else if (mine.tokenizer != first.tokenizer) other = "another tokenizer";
    else if (mine.tokens != first.tokens) other = "other token files";
    if (other)
        error_set(e, EXIT_USAGE,
                  "%s reads %s than rank 0 under the same name: config, data.tokenizer and data.sources must "
                  "be the same on every host",
                  rank, other);
    return comm_agree(world, e);
}

/* Is there a file with this content?  A network's file system may take its time to show it. */
static int comes_to_hold(const char *name, const void *content, size_t bytes) {
    const struct timespec pause = {.tv_nsec = 100000000};
    for (int look = 0; look < 30; look++) {
        char *data = NULL;
        size_t size = 0;
        error ignored = {0};
        int there = !read_file(name, &data, &size, &ignored) && size == bytes && !memcmp(data, content, size);
        mem_free(data);
        if (there) return 1;
        nanosleep(&pause, NULL);
    }
    return 0;
}

int hosts_share(comm *world, const comm *host, const char *directory, error *e) {
    int several = comm_size(host) < comm_size(world), first = comm_rank(world) == 0;
    char rank[HOST_TEXT], *name = text_of("%s/.common", directory);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now); /* what no earlier run left there */
    int64_t content[] = {now.tv_sec, now.tv_nsec, getpid()};
    host_name_rank(world, host, rank);
    if (several) {
        comm_broadcast(world, "what rank 0 writes", content, sizeof content, 0);
        if (first) write_file(name, content, sizeof content, e);
        if (!comm_agree(world, e) && !comes_to_hold(name, content, sizeof content))
            error_set(e, EXIT_USAGE,
                      "%s: %s does not see what rank 0 writes there: run.dir must be on a file system that "
                      "all hosts have in common",
                      directory, rank);
        comm_agree(world, e);
        if (first) unlink(name);
    }
    mem_free(name);
    return e->code;
}
