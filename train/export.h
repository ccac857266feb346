#ifndef CARACAL_TRAIN_EXPORT_H
#define CARACAL_TRAIN_EXPORT_H

/* caracal export CKPT DIR: writes a checkpoint's model under the published names.  Returns an exit code. */
int export_command(int argc, char **argv);

#endif
