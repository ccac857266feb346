/* Multiple choice: which of the answers to a question the model finds likeliest. */
#ifndef CARACAL_TRAIN_CHOICES_H
#define CARACAL_TRAIN_CHOICES_H

#include "data/tokenizer.h"
#include "train/state.h"

/* Reads a .jsonl file of {"question": TEXT, "choices": [TEXT, ...], "answer": index from 0}, and prints how
 * often the right choice has the highest likelihood: of its whole text after the question, and per byte of
 * it.  A text longer than seq_len loses the start of its question.  EXIT_CORRUPT names file and line.
 * Collective. */
int choices_evaluate(state *s, tokenizer *t, const char *path, error *e);

#endif
