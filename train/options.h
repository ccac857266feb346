/* Command lines of the form: WORD ... --name=value ... --section.key=value ... */
#ifndef CARACAL_TRAIN_OPTIONS_H
#define CARACAL_TRAIN_OPTIONS_H

/* The value of --name=value in arg, or NULL when arg is another option. */
const char *option_value(const char *arg, const char *name);
/* --name=N as an integer in [min, max]; prints what is allowed and returns 0 when it is not one. */
int option_integer(const char *value, const char *name, long long min, long long max, long long *out);

#endif
