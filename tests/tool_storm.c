/* Runs a command and kills it, with all that it started, at a given instant: a power switch for jobs.
 *
 *   storm [--rank=R] SECONDS COMMAND...
 *
 * After SECONDS (0: never), or when it gets SIGUSR1, every process below this one gets SIGKILL and is waited
 * for: the exit code is 137 then.  With --rank only that rank of an MPI job is killed; what is left of the
 * job may end in its own way.  Otherwise the exit code is the command's.  The command finds this process's
 * number in STORM_PID (tests/shim_fs.c uses it). */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Reads what there is of a file in /proc; its length. */
static size_t slurp(const char *path, char *text, size_t room) {
    int fd = open(path, O_RDONLY);
    size_t n = 0;
    for (ssize_t got; fd >= 0 && n < room && (got = read(fd, text + n, room - n)) > 0;) n += (size_t)got;
    if (fd >= 0) close(fd);
    return n;
}

/* The processes whose parent is `of`, killed or, with a rank, searched for it. */
static void strike(pid_t of, const char *rank) {
    char path[64], list[8192];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)of, (int)of);
    list[slurp(path, list, sizeof list - 1)] = 0;
    for (char *at = list, *end; *at; at = end + strspn(end, " \n")) {
        pid_t child = (pid_t)strtol(at, &end, 10);
        if (end == at) return;
        if (!rank) {
            kill(child, SIGKILL);
            continue;
        }
        static char environment[1 << 18];
        snprintf(path, sizeof path, "/proc/%d/environ", (int)child);
        size_t n = slurp(path, environment, sizeof environment - 1);
        environment[n] = 0;
        int is_rank = 0;
        for (char *e = environment; e < environment + n; e += strlen(e) + 1) is_rank |= !strcmp(e, rank);
        if (is_rank) kill(child, SIGKILL);
        else strike(child, rank);
    }
}

/* A killed process leaves its children to this one, the nearest subreaper, until there is none left. */
static void strike_all(void) {
    for (;;) {
        strike(getpid(), NULL);
        pid_t gone;
        while ((gone = waitpid(-1, NULL, WNOHANG)) > 0) {}
        if (gone < 0 && errno == ECHILD) return;
        usleep(1000);
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    char rank[64] = "", own[32], *end;
    if (argc > 1 && !strncmp(argv[1], "--rank=", 7)) {
        snprintf(rank, sizeof rank, "OMPI_COMM_WORLD_RANK=%s", argv[1] + 7);
        argv++;
        argc--;
    }
    double seconds = argc > 2 ? strtod(argv[1], &end) : -1;
    if (seconds < 0 || *end) {
        fprintf(stderr, "usage: storm [--rank=R] SECONDS COMMAND...\n");
        return 2;
    }
    sigset_t watched, before;
    sigemptyset(&watched);
    int signals[] = {SIGUSR1, SIGCHLD, SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) sigaddset(&watched, signals[i]);
    sigprocmask(SIG_BLOCK, &watched, &before);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    snprintf(own, sizeof own, "%d", (int)getpid());
    setenv("STORM_PID", own, 1);
    double deadline = seconds > 0 ? now() + seconds : 1e300;
    pid_t command = fork();
    if (command == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    for (;;) {
        double left = deadline - now();
        if (left > 1) left = 1;
        if (left < 0) left = 0;
        struct timespec wait = {(time_t)left, (long)((left - (double)(time_t)left) * 1e9)};
        int signal = sigtimedwait(&watched, NULL, &wait), status;
        for (pid_t gone; (gone = waitpid(-1, &status, WNOHANG)) > 0;)
            if (gone == command) {
                strike_all();
                return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            }
        if (signal > 0 && signal != SIGCHLD) break;
        if (now() < deadline) continue;
        if (!*rank) break;
        strike(getpid(), rank);
        deadline = 1e300;
    }
    strike_all();
    return 137;
}
