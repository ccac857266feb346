#include "launch/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int error_set(error *e, int code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    e->code = code;
    vsnprintf(e->text, sizeof e->text, format, args);
    va_end(args);
    return code;
}

int error_within(error *e, const char *format, ...) {
    char inner[sizeof e->text];
    memcpy(inner, e->text, sizeof inner);
    va_list args;
    va_start(args, format);
    vsnprintf(e->text, sizeof e->text, format, args);
    va_end(args);
    size_t room = sizeof e->text - 1;
    strncat(e->text, ": ", room - strlen(e->text));
    strncat(e->text, inner, room - strlen(e->text)); /* what is too long is cut */
    return e->code;
}

/* mpirun gives ranks pipes: launch/run says what is behind them. */
int messages_on_terminal(void) {
    const char *shown = getenv("CARACAL_TERMINAL");
    if (getenv("OMPI_COMM_WORLD_RANK")) return shown && !strcmp(shown, "both");
    return isatty(STDERR_FILENO);
}

void notice(const char *format, ...) {
    char text[8192];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "%scaracal: %s\n", messages_on_terminal() ? "\r\033[K" : "", text);
}

int error_print(const error *e) {
    if (e->code) notice("%s", e->text);
    return e->code;
}

void fault(int code, const char *file, int line, const char *format, ...) {
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    fflush(stdout);
    if (rank) notice("rank %s: %s (%s:%d)", rank, text, file, line);
    else notice("%s (%s:%d)", text, file, line);
    _exit(code);
}
