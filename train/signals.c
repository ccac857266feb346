#include "train/signals.h"

#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "launch/error.h"

/* Only what a handler may call. */
static void stop_now(int number) {
    static const char text[] =
        "caracal: interrupted; the newest complete checkpoint is intact, train resumes from it\n";
    struct termios terminal;
    (void)number;
    if (!tcgetattr(STDOUT_FILENO, &terminal) &&
        write(STDOUT_FILENO, "\n", 1) < 0) /* below the progress line */
        _exit(EXIT_INTERRUPTED);
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(EXIT_INTERRUPTED);
    _exit(EXIT_INTERRUPTED);
}

int signals_open(int under_launcher) {
    sigset_t set;
    struct sigaction interrupt = {.sa_handler = stop_now};
    if (!under_launcher) sigaction(SIGINT, &interrupt, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    if (!under_launcher) sigaddset(&set, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &set, NULL)) return -1;
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

int signals_requested(int fd) {
    struct signalfd_siginfo info;
    int asked = 0;
    while (fd >= 0 && read(fd, &info, sizeof info) == (ssize_t)sizeof info) asked = 1;
    return asked;
}
