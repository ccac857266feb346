/* `caracal sweep`: many short runs of one config, alike but for the values of a few keys, and what is best.
 */
#ifndef CARACAL_TRAIN_SWEEP_H
#define CARACAL_TRAIN_SWEEP_H

/* argv[0] is the command's name.  Returns an exit code. */
int sweep_command(int argc, char **argv);

#endif
