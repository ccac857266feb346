/* The data room's commands.  argv[0] is the command's own word; the return value is the process's exit code,
 * and messages are already on stderr. */
#ifndef CARACAL_DATA_COMMANDS_H
#define CARACAL_DATA_COMMANDS_H

/* tokenizer train|encode|decode */
int data_tokenizer_command(int argc, char **argv);
/* (data) build */
int data_build_command(int argc, char **argv);
/* (data) ngram */
int data_ngram_command(int argc, char **argv);

#endif
