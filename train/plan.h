/* `caracal plan CONFIG`: what a model costs, without allocating any of it. */
#ifndef CARACAL_TRAIN_PLAN_H
#define CARACAL_TRAIN_PLAN_H

int plan_command(int argc, char **argv);

#endif
