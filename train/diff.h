/* `caracal diff A B`: whether two runs or two checkpoints are identical, and if not, where they part. */
#ifndef CARACAL_TRAIN_DIFF_H
#define CARACAL_TRAIN_DIFF_H

/* argv[0] is the command's name.  Returns an exit code: 0 identical, EXIT_DIFFERENT not, others: an error. */
int diff_command(int argc, char **argv);

#endif
