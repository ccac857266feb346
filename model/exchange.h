/* Dispatch and combine: tokens travel to the ranks that hold their experts, and what the experts made of them
 * travels back.  One plan, computed alike by sender and receiver from one table of counts, gives every
 * address.
 *
 * Order.  The rows of a holder (a rank with its experts) are ordered by (expert, source, token); source order
 * is the order of the micro-batches of this turn.  Tokens travel in `chunks` pieces, so that computing may
 * begin before everything is there, but each row lands at its final place.  If a holder gets more rows than
 * `capacity`, the rest goes in further rounds: a round is a window of the holder's order, and windows end
 * where a GEMM_K_BLOCK of an (expert, source) run ends, so that weight gradients are summed in the same order
 * whatever the capacity.  (Where the number of ranks may decide bits, the sources of an expert are one run:
 * longer sums make faster products.)
 *
 * The backward of dispatch is combine, and the reverse: gradients use the same plan.
 * Identity experts never travel.
 */
#ifndef CARACAL_MODEL_EXCHANGE_H
#define CARACAL_MODEL_EXCHANGE_H

#include "kernels/twin.h"
#include "model/transport.h"

/* T tokens, H hidden, K chosen, E ranks of the group, N FFN experts, C chunks, S = rows a source sends at
 * most, Q = capacity of a holder. */
typedef struct exchange_shape {
    int64_t tokens, hidden, topk, ranks, experts, chunks;
    int64_t joined; /* sources that make one run: 1, or E where the number of ranks may decide bits */
    /* What follows from these and from how much room is wanted (exchange_shape_of). */
    int64_t sends;      /* S = T * min(K, N) */
    int64_t worst;      /* rows that a holder can get: E * T * min(K, N / E) */
    int64_t capacity;   /* Q: rows that a holder keeps room for */
    int64_t max_rounds; /* windows that `worst` rows can need */
} exchange_shape;

/* Completes a shape.  room: rows that a holder is to keep room for, for each of the T tokens. */
exchange_shape exchange_shape_of(exchange_shape s, double room);

typedef struct exchange_plan {
    int64_t tokens; /* of this micro-batch; chunk c holds tokens T*c/C .. T*(c+1)/C */
    int64_t rounds;
    int32_t *count;  /* [E][C][N] rows that a source sends to an expert */
    int64_t *start;  /* [N][E][C] place of the first of them in the holder's order */
    int64_t *window; /* [E][max_rounds + 1] where each holder's rounds begin */
    int32_t *cell;   /* [max_rounds][C][N] + 1: where this source's rows for (round, chunk, expert) begin */
    /* for kernels, and the twins in which the host writes them (kernels/twin.h); one table in this order */
    int32_t *row_of, *row_of_host; /* [T, K] sending-order row of a slot, -1 for an identity expert */
    int32_t *token, *token_host;   /* [S] this source's rows in sending order: which token */
    int32_t *slot, *slot_host;     /* [S] and which slot t * K + k */
} exchange_plan;

typedef struct exchange {
    exchange_shape shape;
    const kernels *k;
    comm *group;
    transport *transport;            /* of the same ranks */
    real *send_SH, *send_weight_S;   /* this source's rows on their way out; then what came back */
    real *stage_QH, *stage_weight_Q; /* a holder's rows on the wire, by (chunk, source, expert, token) */
    int32_t *place_Q, *place_host;   /* where each of them belongs in the window */
    int64_t *stage_start;            /* [C][E] of the current round */
    comm_part *part;
    comm_request *counts;
    transport_request **outward, **homeward; /* [C] each */
    const real *rows, *weight;               /* what is being dispatched */
    const real *answer_SH, *answer_weight_S; /* what came back: send_*, or where a rank alone has it */
} exchange;

/* a: for what kernels work on; sent: for what is sent, in memory of transport_alloc; host: for what the host
 * does. transport: among the ranks of the group. */
void exchange_create(exchange *x, arena *a, arena *sent, arena *host, const exchange_shape *shape,
                     const kernels *k, comm *group, transport *transport);
void exchange_plan_create(exchange_plan *p, arena *a, arena *host, const exchange_shape *shape,
                          const kernels *k);

/* Counts this micro-batch's choices (index [T,K], host memory, ascending per token) and starts telling the
 * group. */
void exchange_announce(exchange *x, exchange_plan *p, const int32_t *index, int64_t tokens);
/* Would exchange_plan_finish not wait? */
int exchange_counts_came(const exchange *x);
/* Completes the plan. */
void exchange_plan_finish(exchange *x, exchange_plan *p, const int32_t *index);

/* The life of one piece (round r, chunk c), in this order.  Pieces of one round may overlap.
 * dispatch: starts sending rows [T,H] (and, if not NULL, weights [T,K]) of the chunk's tokens.
 * arrive:   waits; rows_QH (weight_Q) = the received rows at their places in the window.
 * give_back: starts returning rows_QH (and weight_Q, a number per row) the same way.  They stay the caller's
 *           until the answers were used.
 * collect:  waits; x->answer_SH (and, with_weight, answer_weight_S) hold the answers in sending order, for
 *           row_of. */
void exchange_dispatch(exchange *x, const exchange_plan *p, int64_t r, int64_t c, const real *rows_TH,
                       const real *weight_TK);
/* Would exchange_arrive not wait, in any chunk of the round? */
int exchange_rows_came(const exchange *x);
void exchange_arrive(exchange *x, const exchange_plan *p, int64_t r, int64_t c, real *rows_QH,
                     real *weight_Q);
void exchange_give_back(exchange *x, const exchange_plan *p, int64_t r, int64_t c, const real *rows_QH,
                        const real *weight_Q);
void exchange_collect(exchange *x, const exchange_plan *p, int64_t r, int64_t c, int with_weight);

/* The runs of rows of a piece on this holder, by (expert, source); of a whole round, with joined sources as
 * one, when c < 0.  `expert` counts this rank's experts; class_of[source] filters by class unless NULL.
 * Returns how many, at most N. */
int64_t exchange_segments(const exchange *x, const exchange_plan *p, int64_t r, int64_t c,
                          const int *class_of, int class, segment *out);

#endif
