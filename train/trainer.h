/* `caracal train CONFIG [--resume=auto|none|PATH] [--init-from=CKPT] [--section.key=value ...]` */
#ifndef CARACAL_TRAIN_TRAINER_H
#define CARACAL_TRAIN_TRAINER_H

int train_command(int argc, char **argv);

#endif
