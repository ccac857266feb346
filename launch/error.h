/* Two kinds of failure, and no third.
 *
 * Bad input (a config, a corpus, a checkpoint, a full disk) is returned: the function gives back one of the
 * exit codes below, fills *error with a message that names the thing and says what to do, and leaves nothing
 * half done.  A fault (a broken invariant, a rank that does not answer, no memory) ends the program at once:
 * FAULT prints rank, file and line, and mpirun ends the other ranks.
 */
#ifndef CARACAL_LAUNCH_ERROR_H
#define CARACAL_LAUNCH_ERROR_H

enum exit_code {
    EXIT_DONE = 0,
    EXIT_DIFFERENT = 1,     /* `caracal diff`: the two are not identical */
    EXIT_USAGE = 2,         /* config or command line */
    EXIT_CORRUPT = 3,       /* damaged data or checkpoint */
    EXIT_TIMED_OUT = 4,     /* a wait passed its deadline */
    EXIT_NONFINITE = 5,     /* loss or gradient norm not finite */
    EXIT_IO = 6,            /* I/O error or full disk */
    EXIT_NO_MEMORY = 7,     /* of the host or of a device */
    EXIT_SDC = 8,           /* silent data corruption detected */
    EXIT_RANK_DIED = 9,     /* or MPI failed */
    EXIT_BUG = 70,          /* an invariant of the program does not hold */
    EXIT_REQUEUE = 75,      /* checkpoint written, run again */
    EXIT_INTERRUPTED = 130, /* stopped by the user */
};

typedef struct error {
    int code; /* 0 or an exit_code */
    char text[1536];
} error;

/* Fills *e and returns code, so that `return error_set(e, EXIT_USAGE, "...")` is the whole story. */
int error_set(error *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the message already in *e and returns its code. */
int error_within(error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints "caracal: " and the text on stderr, as a line of its own: an open progress line, be it of another
 * rank, gives way. */
void notice(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Is stderr a person's terminal?  A line of progress may stand on it then (launch/progress.h, and that of
 * train/console.h). */
int messages_on_terminal(void);

/* The message as a notice, where there is an error; returns its code. */
int error_print(const error *e);

/* Ends this process (and so, under mpirun, every rank) with a message on stderr. */
#define FAULT(code, ...) fault(code, __FILE__, __LINE__, __VA_ARGS__)
_Noreturn void fault(int code, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* A condition that only a bug can break. */
#define REQUIRE(condition)                                                                                   \
    do {                                                                                                     \
        if (!(condition)) FAULT(EXIT_BUG, "broken invariant: %s", #condition);                               \
    } while (0)

#endif
