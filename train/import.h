#ifndef CARACAL_TRAIN_IMPORT_H
#define CARACAL_TRAIN_IMPORT_H

/* caracal import DIR RUN_DIR: makes a run of a model in the published format.  Returns an exit code. */
int import_command(int argc, char **argv);

#endif
