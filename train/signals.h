/* Signals that a run answers.  USR1 (and, without mpirun, TERM) asks for a checkpoint at the next step
 * boundary; INT stops at once.  Under mpirun, TERM is mpirun's way of ending a rank and does just that. */
#ifndef CARACAL_TRAIN_SIGNALS_H
#define CARACAL_TRAIN_SIGNALS_H

/* Returns a descriptor for signals_requested, or -1. */
int signals_open(int under_launcher);
/* 1 if a checkpoint and an end were asked for since the last call. */
int signals_requested(int fd);

#endif
