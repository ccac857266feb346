/* `caracal train CONFIG [--resume=auto|none|PATH] [--init-from=CKPT] [--exit-after=DURATION]
 * [--section.key=value
 * ...]` */
#ifndef CARACAL_TRAIN_TRAINER_H
#define CARACAL_TRAIN_TRAINER_H

int train_command(int argc, char **argv);

#endif
