/* Distinct pieces of text, numbered 0, 1, 2, ... in the order in which they were first seen. */
#ifndef CARACAL_DATA_PIECE_TABLE_H
#define CARACAL_DATA_PIECE_TABLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct piece_table {
    char *text;     /* all pieces, one after the other */
    int64_t *start; /* [count + 1]: piece i is text[start[i]] .. text[start[i + 1]] */
    int64_t count;
    int64_t text_room, start_room;
    struct piece_slot {
        uint64_t hash;
        int64_t piece; /* number + 1; 0: empty */
    } * slot;
    uint64_t slots;
} piece_table;

/* The piece's number; it is new if that equals the count before the call. */
int64_t piece_table_number(piece_table *t, const char *piece, size_t bytes);
/* Forgets all pieces and keeps the memory. */
void piece_table_clear(piece_table *t);
void piece_table_free(piece_table *t);

#endif
