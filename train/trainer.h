/* `caracal train CONFIG`, with --resume, --init-from, --exit-after and keys of the config. */
#ifndef CARACAL_TRAIN_TRAINER_H
#define CARACAL_TRAIN_TRAINER_H

int train_command(int argc, char **argv);

#endif
