/* The threads behind `#pragma omp parallel`: OpenMP as far as we use it, through the entry points that gcc
 * calls (GCC's manual of libgomp, "Implementing PARALLEL construct").  There is no header: the pragmas are
 * the interface.  What we do not use, dynamic schedules for one, is missed by the linker.
 *
 * It is here for two reasons.  A training step has some 4,000 parallel regions, and a small product takes 6
 * microseconds: libgomp takes 0.45 to begin and end a region, this 0.11 (docs/performance.md).  And how long
 * a thread spins before it sleeps can be said here, and whether it spins at all can depend on what else runs.
 *
 * A thread that meets a parallel region has a team of its own, which stays for its next one, and until the
 * process ends: only one thread of ours meets any, and no fork's child does, which would wait for ever. Words
 * between threads are flags with one writer and one reader: the caller raises `begin` of each worker, and
 * each worker its `end`.  A barrier is an end and a beginning.
 */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "launch/error.h"
#include "launch/memory.h"

#pragma GCC visibility push(hidden) /* a library that has threads of libgomp's keeps them */
#include <omp.h>
void GOMP_parallel(void (*region)(void *), void *data, unsigned threads, unsigned flags);
void GOMP_barrier(void);
#pragma GCC visibility pop

/* How often a thread looks before it sleeps: well under a millisecond.  A third of it lets threads sleep
 * hundreds of times a step, and waking them costs some percent of it. */
enum { LOOKS = 30000 };

/* Where other programs want the cores too, half of the regions wait longer than a thread spins, for one that
 * is not running; with nobody else one in a hundred does.  A team that was late so often within a term sleeps
 * for the next one, and tries again: terms of sleep grow from the shortest to the longest as long as trying
 * goes wrong. */
enum { TERM = 128, LATE = 16, SHORTEST = 256, LONGEST = 16384 };

enum { LOW, RAISED, ASLEEP };
typedef struct flag {
    _Alignas(64) int state;
    sem_t wake; /* posted to where it was found asleep */
} flag;

typedef struct team team;
typedef struct worker {
    flag begin, end;
    team *team;
    int number;
    struct worker *next;
} worker;

struct team {
    worker *first; /* in the order of their numbers, from 1 on; the caller is number 0 */
    int size, looks;
    int crowded;       /* this term is one of sleep */
    int regions, late; /* in this term so far; those that the caller spun for in vain */
    int term, sleep;   /* regions of this term, and of the next one of sleep */
    void (*region)(void *);
    void *data;
};

/* Which region the calling thread is in (NULL: none), and as which worker (NULL: it met the region). */
typedef struct place {
    team *team;
    worker *self;
} place;
static _Thread_local place here;
static _Thread_local team *own;

static void flag_raise(flag *f) {
    if (__atomic_exchange_n(&f->state, RAISED, __ATOMIC_ACQ_REL) == ASLEEP) sem_post(&f->wake);
}

/* Waits until the flag is raised, and lowers it.  Returns whether it spun in vain. */
static int flag_wait(flag *f, int looks) {
    int look = 0;
    for (; __atomic_load_n(&f->state, __ATOMIC_ACQUIRE) != RAISED; look++) {
        int low = LOW;
        if (look < looks) __builtin_ia32_pause();
        else if (__atomic_compare_exchange_n(&f->state, &low, ASLEEP, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            while (sem_wait(&f->wake)) continue; /* a signal came between */
    }
    __atomic_store_n(&f->state, LOW, __ATOMIC_RELAXED);
    return looks && look > looks;
}

static void all_begin(team *t) {
    worker *w = t->first;
    for (int number = 1; number < t->size; number++, w = w->next) flag_raise(&w->begin);
}

static void all_end(team *t) {
    worker *w = t->first;
    for (int number = 1; number < t->size; number++, w = w->next) t->late += flag_wait(&w->end, t->looks);
}

static void *work(void *of) {
    worker *w = of;
    team *t = w->team;
    here = (place){t, w};
    for (int looks = t->looks;;) {
        flag_wait(&w->begin, looks);
        t->region(t->data);
        looks = t->looks;
        flag_raise(&w->end);
    }
    return NULL;
}

static worker *worker_create(team *t, int number) {
    worker *w = mem_alloc(sizeof *w, "a thread");
    w->team = t;
    w->number = number;
    sem_init(&w->begin.wake, 0, 0);
    sem_init(&w->end.wake, 0, 0);
    pthread_t thread;
    const int refused = pthread_create(&thread, NULL, work, w);
    if (refused)
        FAULT(EXIT_NO_MEMORY, "thread %d of %d cannot be started (%s); parallel.threads asks for fewer",
              number + 1, t->size, strerror(refused));
    pthread_detach(thread);
    return w;
}

static team *team_create(void) {
    team *t = mem_alloc(sizeof *t, "threads");
    t->sleep = SHORTEST;
    return t;
}

static void begin_term(team *t) {
    t->crowded = t->late >= LATE;
    t->term = t->crowded ? t->sleep : TERM;
    if (t->crowded) t->sleep = t->sleep < LONGEST ? 2 * t->sleep : LONGEST;
    else if (t->looks) t->sleep = SHORTEST;
    t->regions = t->late = 0;
}

/* Makes the calling thread's team one of so many, which do not spin where they would in each other's time, or
 * another program's: a process may be given fewer processors, or more, at any time. */
static void resize(team *t, int threads) {
    const char *policy = getenv("OMP_WAIT_POLICY");
    const int passive = policy && !strcasecmp(policy, "passive");
    t->size = threads;
    t->looks = passive || t->crowded || threads > omp_get_num_procs() ? 0 : LOOKS;
    worker **w = &t->first;
    for (int number = 1; number < threads; number++, w = &(*w)->next)
        if (!*w) *w = worker_create(t, number);
}

void GOMP_parallel(void (*region)(void *), void *data, unsigned threads, unsigned flags) {
    (void)flags; /* where threads are to run: wherever the system puts them */
    const place outside = here;
    team alone = {.size = 1}; /* so is who meets a region inside a region */
    if (threads < 2 || outside.team) {
        here = (place){&alone, NULL};
        region(data);
    } else {
        if (!own) own = team_create();
        const int due = own->regions == own->term || own->late >= LATE;
        if (due) begin_term(own);
        if (due || own->size != (int)threads) resize(own, (int)threads);
        own->regions++;
        own->region = region;
        own->data = data;
        here.team = own;
        all_begin(own);
        region(data);
        all_end(own);
    }
    here = outside;
}

void GOMP_barrier(void) {
    if (here.self) {
        flag_raise(&here.self->end);
        flag_wait(&here.self->begin, here.team->looks);
    } else if (here.team) {
        all_end(here.team);
        all_begin(here.team);
    }
}

int omp_get_thread_num(void) {
    return here.self ? here.self->number : 0;
}

int omp_get_num_threads(void) {
    return here.team ? here.team->size : 1;
}

/* That this process may run on. */
int omp_get_num_procs(void) {
    cpu_set_t mine;
    if (!sched_getaffinity(0, sizeof mine, &mine)) return CPU_COUNT(&mine);
    return (int)sysconf(_SC_NPROCESSORS_ONLN); /* more than a set has room for */
}
