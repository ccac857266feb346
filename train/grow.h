/* `caracal grow CKPT OUT [--times=2] [--section.key=value ...]`: a run that goes on where CKPT stands, with
 * its layers stacked. */
#ifndef CARACAL_TRAIN_GROW_H
#define CARACAL_TRAIN_GROW_H

int grow_command(int argc, char **argv);

#endif
