/* `caracal generate CKPT --prompt=TEXT ... [--tokens=64]`: continues each prompt, greedily or by drawing. */
#ifndef CARACAL_TRAIN_GENERATE_H
#define CARACAL_TRAIN_GENERATE_H

int generate_command(int argc, char **argv);

#endif
