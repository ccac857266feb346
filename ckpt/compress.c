#include "ckpt/compress.h"

#include <pthread.h>
#include <string.h>

#include "launch/memory.h"

/* A frame, from when a thread takes its chunk until the writer asks for the next one. */
typedef struct slot {
    chunk_codec *codec; /* owns the frame */
    const void *frame;
    size_t bytes;
    int ready;
} slot;

/* The chunks still to be compressed. */
typedef struct chunk_walk {
    const ckpt_tensor *tensor, *end;
    const char *values; /* of *tensor */
    int64_t chunk;      /* of *tensor */
} chunk_walk;

struct compressor {
    int threads, running, slots;
    pthread_t *thread;
    slot *slot; /* chunk k of the walk goes to slot k % slots */
    pthread_mutex_t lock;
    pthread_cond_t room, ready;
    /* under the lock: */
    chunk_walk walk;
    int64_t taken, given; /* chunks that threads took; frames that the writer was given */
    int stop;
};

static int slots_of(int threads) {
    return 2 * threads + 1; /* one is in the writer's hands */
}

size_t compressor_bytes(int threads) {
    return (size_t)slots_of(threads) * (CHUNK_BYTES + chunk_frame_limit(1, CHUNK_BYTES));
}

compressor *compressor_new(int threads) {
    REQUIRE(threads >= 1);
    compressor *c = mem_alloc(sizeof *c, "a compressor");
    c->threads = threads;
    c->slots = slots_of(threads);
    c->thread = mem_alloc((size_t)threads * sizeof *c->thread, "a compressor's threads");
    c->slot = mem_alloc((size_t)c->slots * sizeof *c->slot, "a compressor's frames");
    for (int i = 0; i < c->slots; i++) c->slot[i].codec = chunk_codec_new();
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->room, NULL);
    pthread_cond_init(&c->ready, NULL);
    return c;
}

void compressor_free(compressor *c) {
    if (!c) return;
    REQUIRE(!c->running);
    pthread_cond_destroy(&c->ready);
    pthread_cond_destroy(&c->room);
    pthread_mutex_destroy(&c->lock);
    for (int i = 0; i < c->slots; i++) chunk_codec_free(c->slot[i].codec);
    mem_free(c->slot);
    mem_free(c->thread);
    mem_free(c);
}

/* A chunk: its elements, and how many there would be in a full one. */
typedef struct chunk_job {
    const char *values;
    size_t size, elements, full;
} chunk_job;

static chunk_job walk_next(chunk_walk *w) {
    const ckpt_tensor *t = w->tensor;
    chunk_grid g = chunk_grid_of(t);
    chunk_span chunk = chunk_at(t, &g, w->chunk);
    size_t size = ckpt_type_size(t->type);
    chunk_job job = {w->values + (size_t)chunk.offset * size, size, (size_t)chunk.count, (size_t)g.full};
    if (++w->chunk == g.chunks) {
        w->values += ckpt_bytes(t);
        w->tensor++;
        w->chunk = 0;
    }
    return job;
}

/* What a thread does: takes the next chunk as soon as its slot is free. */
static void *compress_chunks(void *argument) {
    compressor *c = argument;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        /* of the frames given, only the last is still in use */
        while (!c->stop && c->taken - (c->given ? c->given - 1 : 0) == c->slots)
            pthread_cond_wait(&c->room, &c->lock);
        if (c->stop || c->walk.tensor == c->walk.end) break;
        slot *s = &c->slot[c->taken++ % c->slots];
        chunk_job job = walk_next(&c->walk);
        pthread_mutex_unlock(&c->lock);

        s->bytes = chunk_encode(s->codec, job.size, job.values, job.elements, job.full, &s->frame);

        pthread_mutex_lock(&c->lock);
        s->ready = 1;
        pthread_cond_signal(&c->ready);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

int compressor_begin(compressor *c, const ckpt_tensor *tensors, int64_t n, const char *values, error *e) {
    REQUIRE(!c->running);
    c->walk = (chunk_walk){tensors, tensors + n, values, 0};
    c->taken = c->given = 0;
    c->stop = 0;
    for (int i = 0; i < c->slots; i++) c->slot[i].ready = 0;
    for (; c->running < c->threads; c->running++) {
        int refused = pthread_create(&c->thread[c->running], NULL, compress_chunks, c);
        if (!refused) continue;
        compressor_end(c);
        return error_set(e, EXIT_NO_MEMORY, "no thread to compress with: %s", strerror(refused));
    }
    return 0;
}

size_t compressor_next(compressor *c, const void **frame) {
    pthread_mutex_lock(&c->lock);
    if (c->given) { /* the frame before this one is done with */
        c->slot[(c->given - 1) % c->slots].ready = 0;
        pthread_cond_signal(&c->room);
    }
    const slot *s = &c->slot[c->given++ % c->slots];
    while (!s->ready) pthread_cond_wait(&c->ready, &c->lock);
    pthread_mutex_unlock(&c->lock);
    *frame = s->frame;
    return s->bytes;
}

void compressor_end(compressor *c) {
    pthread_mutex_lock(&c->lock);
    c->stop = 1;
    pthread_cond_broadcast(&c->room);
    pthread_mutex_unlock(&c->lock);
    while (c->running) pthread_join(c->thread[--c->running], NULL);
}
