#include "model/exchange.h"

#include <string.h>

static int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static int64_t max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

exchange_shape exchange_shape_of(exchange_shape s, double room) {
    if (s.ranks == 1) s.chunks = 1;
    s.sends = s.tokens * min64(s.topk, s.experts);
    s.worst = s.ranks * s.tokens * min64(s.topk, s.experts / s.ranks);
    int64_t wanted = (int64_t)(room * (double)s.tokens) + 1;
    s.capacity = min64(s.worst, max64(wanted, 2 * GEMM_K_BLOCK));
    /* a window that is not the last is full but for less than a block */
    int64_t full = s.capacity - GEMM_K_BLOCK + 1;
    s.max_rounds = s.capacity == s.worst ? 1 : (s.worst + full - 1) / full;
    return s;
}

/* ---- addresses ---- */

static int64_t holder_of(const exchange_shape *s, int64_t expert) {
    return expert / (s->experts / s->ranks);
}

static int32_t *count_at(const exchange_shape *s, const exchange_plan *p, int64_t source, int64_t c,
                         int64_t n) {
    return &p->count[(source * s->chunks + c) * s->experts + n];
}

static int64_t *start_at(const exchange_shape *s, const exchange_plan *p, int64_t n, int64_t source,
                         int64_t c) {
    return &p->start[(n * s->ranks + source) * s->chunks + c];
}

static int32_t *cell_at(const exchange_shape *s, const exchange_plan *p, int64_t r, int64_t c, int64_t n) {
    return &p->cell[(r * s->chunks + c) * s->experts + n];
}

static int64_t *window_at(const exchange_shape *s, const exchange_plan *p, int64_t holder, int64_t r) {
    return &p->window[holder * (s->max_rounds + 1) + r];
}

/* The part of (expert, source, chunk)'s run that lies in a round's window; rows first .. first + rows of the
 * window. */
typedef struct span {
    int64_t first, rows;
} span;

static span clip(const exchange_shape *s, const exchange_plan *p, int64_t r, int64_t n, int64_t begin,
                 int64_t end) {
    const int64_t *w = window_at(s, p, holder_of(s, n), r);
    int64_t lo = max64(begin, w[0]), hi = min64(end, w[1]);
    return (span){lo - w[0], max64(hi - lo, 0)};
}

static span overlap(const exchange_shape *s, const exchange_plan *p, int64_t r, int64_t n, int64_t source,
                    int64_t c) {
    int64_t begin = *start_at(s, p, n, source, c);
    return clip(s, p, r, n, begin, begin + *count_at(s, p, source, c, n));
}

static int64_t chunk_begin(const exchange_plan *p, const exchange_shape *s, int64_t c) {
    return p->tokens * c / s->chunks;
}

/* ---- creation ---- */

void exchange_plan_create(exchange_plan *p, arena *a, arena *host, const exchange_shape *s,
                          const kernels *k) {
    *p = (exchange_plan){0};
    int64_t table = s->ranks * s->chunks * s->experts;
    int64_t slots = s->tokens * s->topk;
    size_t indices = (size_t)(slots + 2 * s->sends) * sizeof *p->row_of;
    p->count = arena_alloc(host, (size_t)table * sizeof *p->count);
    p->start = arena_alloc(host, (size_t)table * sizeof *p->start);
    p->window = arena_alloc(host, (size_t)(s->ranks * (s->max_rounds + 1)) * sizeof *p->window);
    p->cell = arena_alloc(host, (size_t)(s->max_rounds * s->chunks * s->experts + 1) * sizeof *p->cell);
    p->row_of = arena_alloc(a, indices);
    p->row_of_host = twin_place(k, host, p->row_of, indices);
}

void exchange_create(exchange *x, arena *a, arena *sent, arena *host, const exchange_shape *s,
                     const kernels *k, comm *group, transport *transport) {
    size_t places = (size_t)s->capacity * sizeof *x->place_Q;
    *x = (exchange){.shape = *s, .k = k, .group = group, .transport = transport};
    x->send_SH = arena_alloc(sent, (size_t)(s->sends * s->hidden) * sizeof(real));
    x->send_weight_S = arena_alloc(sent, (size_t)s->sends * sizeof(real));
    if (s->ranks > 1) { /* a rank alone copies its rows straight to their places */
        x->stage_QH = arena_alloc(sent, (size_t)(s->capacity * s->hidden) * sizeof(real));
        x->stage_weight_Q = arena_alloc(sent, (size_t)s->capacity * sizeof(real));
    }
    x->place_Q = arena_alloc(a, places);
    x->place_host = twin_place(k, host, x->place_Q, places);
    x->stage_start = arena_alloc(host, (size_t)(s->chunks * s->ranks) * sizeof *x->stage_start);
    x->part = arena_alloc(host, (size_t)(4 * s->ranks) * sizeof *x->part);
    x->outward = arena_alloc(host, (size_t)s->chunks * sizeof *x->outward);
    x->homeward = arena_alloc(host, (size_t)s->chunks * sizeof *x->homeward);
}

/* ---- the plan ---- */

void exchange_announce(exchange *x, exchange_plan *p, const int32_t *index, int64_t tokens) {
    const exchange_shape *s = &x->shape;
    int me = comm_rank(x->group);
    int64_t table = s->chunks * s->experts;
    p->tokens = tokens;
    memset(count_at(s, p, me, 0, 0), 0, (size_t)table * sizeof *p->count);
    for (int64_t c = 0; c < s->chunks; c++)
        for (int64_t i = chunk_begin(p, s, c) * s->topk; i < chunk_begin(p, s, c + 1) * s->topk; i++)
            if (index[i] < s->experts) ++*count_at(s, p, me, c, index[i]);
    int n = 0;
    for (int peer = 0; peer < s->ranks; peer++) {
        if (peer == me) continue;
        size_t bytes = (size_t)table * sizeof *p->count;
        x->part[n] = (comm_part){peer, count_at(s, p, me, 0, 0), bytes};
        x->part[2 * s->ranks + n++] = (comm_part){peer, count_at(s, p, peer, 0, 0), bytes};
    }
    x->counts = n ? comm_exchange(x->group, "expert counts", n, x->part, n, x->part + 2 * s->ranks) : NULL;
}

int exchange_counts_came(const exchange *x) {
    return comm_has_come(x->group, x->counts);
}

/* Cuts every holder's rows into windows of at most `capacity`, ending at k-block boundaries. */
static void cut_windows(const exchange_shape *s, exchange_plan *p) {
    p->rounds = 1;
    for (int64_t holder = 0; holder < s->ranks; holder++) {
        int64_t *w = window_at(s, p, holder, 0), r = 0, local = s->experts / s->ranks, end = 0;
        int64_t begin = 0; /* of the run at hand */
        w[0] = 0;
        for (int64_t n = holder * local; n < (holder + 1) * local; n++)
            for (int64_t source = 0; source < s->ranks; source++) {
                if (source % s->joined == 0) begin = end;
                for (int64_t c = 0; c < s->chunks; c++) {
                    *start_at(s, p, n, source, c) = end;
                    end += *count_at(s, p, source, c, n);
                }
                while (end - w[r] > s->capacity) {
                    w[r + 1] = begin + (w[r] + s->capacity - begin) / GEMM_K_BLOCK * GEMM_K_BLOCK;
                    r++;
                }
            }
        p->rounds = max64(p->rounds, r + 1);
        while (r < s->max_rounds) w[++r] = end;
    }
}

/* Slots, tokens and slots of so many rows lie behind one another, so that kernels get them at once. */
static void place_indices(const exchange_shape *s, exchange_plan *p, int64_t rows) {
    int64_t slots = p->tokens * s->topk;
    p->token = p->row_of + slots;
    p->slot = p->token + rows;
    p->token_host = p->row_of_host + slots;
    p->slot_host = p->token_host + rows;
}

/* The round in which this source's next row of a chunk for expert n travels; start_at runs along as that
 * row's place, where there are several. */
static int64_t round_of_next(const exchange_shape *s, const exchange_plan *p, int me, int64_t n, int64_t c) {
    if (p->rounds == 1) return 0;
    int64_t place = (*start_at(s, p, n, me, c))++, r = 0;
    const int64_t *w = window_at(s, p, holder_of(s, n), 0);
    while (place >= w[r + 1]) r++;
    return r;
}

/* This source's rows in the order (round, chunk, expert, token). */
static void order_rows(const exchange_shape *s, exchange_plan *p, int me, const int32_t *index) {
    int32_t at = 0;
    for (int64_t r = 0; r < p->rounds; r++)
        for (int64_t c = 0; c < s->chunks; c++)
            for (int64_t n = 0; n < s->experts; n++) {
                *cell_at(s, p, r, c, n) = at;
                at += (int32_t)overlap(s, p, r, n, me, c).rows;
            }
    *cell_at(s, p, p->rounds, 0, 0) = at;
    place_indices(s, p, at);
    for (int64_t c = 0; c < s->chunks; c++) {
        for (int64_t t = chunk_begin(p, s, c); t < chunk_begin(p, s, c + 1); t++) {
            int64_t slot = t * s->topk, end = slot + s->topk;
            /* ids ascend: identity experts come last */
            for (; slot < end && index[slot] < s->experts; slot++) {
                int32_t row = (*cell_at(s, p, round_of_next(s, p, me, index[slot], c), c, index[slot]))++;
                p->row_of_host[slot] = row;
                p->token_host[row] = (int32_t)t;
                p->slot_host[row] = (int32_t)slot;
            }
            for (; slot < end; slot++) p->row_of_host[slot] = -1;
        }
        for (int64_t n = 0; p->rounds > 1 && n < s->experts; n++)
            *start_at(s, p, n, me, c) -= *count_at(s, p, me, c, n);
    }
    for (int64_t r = 0; r < p->rounds; r++)
        for (int64_t c = 0; c < s->chunks; c++)
            for (int64_t n = 0; n < s->experts; n++)
                *cell_at(s, p, r, c, n) -= (int32_t)overlap(s, p, r, n, me, c).rows;
}

void exchange_plan_finish(exchange *x, exchange_plan *p, const int32_t *index) {
    if (comm_wait(x->group, x->counts)) /* nobody knows any more who gets what */
        FAULT(EXIT_SDC, "%s; nothing is saved: resume from the newest checkpoint",
              comm_corruption(x->group)->text);
    x->counts = NULL;
    cut_windows(&x->shape, p);
    order_rows(&x->shape, p, comm_rank(x->group), index);
    int64_t indices = p->tokens * x->shape.topk + 2 * *cell_at(&x->shape, p, p->rounds, 0, 0);
    twin_write(x->k, p->row_of, p->row_of_host, (size_t)indices * sizeof *p->row_of);
}

/* ---- pieces ---- */

/* Rows of the sending order for a holder: [first, first + rows). */
static span outgoing(const exchange_shape *s, const exchange_plan *p, int64_t r, int64_t c, int64_t holder) {
    int64_t local = s->experts / s->ranks;
    int64_t first = *cell_at(s, p, r, c, holder * local);
    return (span){first, *(cell_at(s, p, r, c, (holder + 1) * local - 1) + 1) - first};
}

/* Writes the places of the rows that come from `source` and returns how many there are. */
static int64_t incoming(const exchange *x, const exchange_plan *p, int64_t r, int64_t c, int64_t source,
                        int32_t *place) {
    const exchange_shape *s = &x->shape;
    int64_t local = s->experts / s->ranks, me = comm_rank(x->group), rows = 0;
    for (int64_t n = me * local; n < (me + 1) * local; n++) {
        span run = overlap(s, p, r, n, source, c);
        for (int64_t i = 0; i < run.rows; i++) place[rows + i] = (int32_t)(run.first + i);
        rows += run.rows;
    }
    return rows;
}

/* A rank alone has its rows in sending order, when there is one round: each is at its place. */
static int is_at_home(const exchange *x, const exchange_plan *p) {
    return x->shape.ranks == 1 && p->rounds == 1;
}

/* Where each (chunk, source) lies in the stage, and the places of all its rows. */
static void lay_out_stage(exchange *x, const exchange_plan *p, int64_t r) {
    const exchange_shape *s = &x->shape;
    int64_t at = 0;
    x->stage_start[0] = 0;
    if (is_at_home(x, p)) return;
    for (int64_t c = 0; c < s->chunks; c++)
        for (int64_t source = 0; source < s->ranks; source++) {
            x->stage_start[c * s->ranks + source] = at;
            at += incoming(x, p, r, c, source, x->place_host + at);
        }
    twin_write(x->k, x->place_Q, x->place_host, (size_t)at * sizeof *x->place_Q);
}

static span staged(const exchange *x, const exchange_plan *p, int64_t r, int64_t c, int64_t source) {
    const int64_t *w = window_at(&x->shape, p, comm_rank(x->group), r);
    int64_t i = c * x->shape.ranks + source, first = x->stage_start[i];
    int64_t end = i + 1 < x->shape.chunks * x->shape.ranks ? x->stage_start[i + 1] : w[1] - w[0];
    return (span){first, end - first};
}

/* Messages of a piece, both ways: the sources' side lies in send_*, the holders' in stage_*. */
static transport_request *start_messages(exchange *x, const exchange_plan *p, int64_t r, int64_t c,
                                         const char *operation, int homeward, int with_weight) {
    const exchange_shape *s = &x->shape;
    int me = comm_rank(x->group), n_source = 0, n_holder = 0;
    comm_part *source_side = x->part, *holder_side = x->part + 2 * s->ranks;
    size_t row = (size_t)s->hidden * sizeof(real);
    for (int peer = 0; peer < s->ranks; peer++) {
        if (peer == me) continue;
        span out = outgoing(s, p, r, c, peer), in = staged(x, p, r, c, peer);
        source_side[n_source++] =
            (comm_part){peer, x->send_SH + out.first * s->hidden, (size_t)out.rows * row};
        holder_side[n_holder++] =
            (comm_part){peer, x->stage_QH + in.first * s->hidden, (size_t)in.rows * row};
        if (!with_weight) continue;
        source_side[n_source++] =
            (comm_part){peer, x->send_weight_S + out.first, (size_t)out.rows * sizeof(real)};
        holder_side[n_holder++] =
            (comm_part){peer, x->stage_weight_Q + in.first, (size_t)in.rows * sizeof(real)};
    }
    if (!n_source) return NULL;
    return homeward
               ? transport_exchange(x->transport, operation, n_holder, holder_side, n_source, source_side)
               : transport_exchange(x->transport, operation, n_source, source_side, n_holder, holder_side);
}

/* Until all have read what the last pieces sent from this memory. */
static void settle(exchange *x, transport_request **pieces) {
    for (int64_t c = 0; c < x->shape.chunks; c++) {
        transport_wait(x->transport, pieces[c]);
        pieces[c] = NULL;
    }
}

void exchange_dispatch(exchange *x, const exchange_plan *p, int64_t r, int64_t c, const real *rows_TH,
                       const real *weight_TK) {
    const exchange_shape *s = &x->shape;
    const kernels *k = x->k;
    x->rows = rows_TH;
    x->weight = weight_TK;
    if (c == 0) {
        settle(x, x->outward);
        lay_out_stage(x, p, r);
    }
    for (int peer = 0; peer < s->ranks; peer++) {
        if (peer == comm_rank(x->group)) continue;
        span out = outgoing(s, p, r, c, peer);
        k->copy_rows(k->ctx, out.rows, s->hidden, x->send_SH + out.first * s->hidden, NULL, rows_TH,
                     p->token + out.first);
        if (weight_TK)
            k->copy_rows(k->ctx, out.rows, 1, x->send_weight_S + out.first, NULL, weight_TK,
                         p->slot + out.first);
    }
    x->outward[c] = start_messages(x, p, r, c, "dispatch", 0, weight_TK != NULL);
}

int exchange_rows_came(const exchange *x) {
    for (int64_t c = 0; c < x->shape.chunks; c++)
        if (!transport_has_come(x->transport, x->outward[c])) return 0;
    return 1;
}

void exchange_arrive(exchange *x, const exchange_plan *p, int64_t r, int64_t c, real *rows_QH,
                     real *weight_Q) {
    const exchange_shape *s = &x->shape;
    const kernels *k = x->k;
    int me = comm_rank(x->group);
    span own = outgoing(s, p, r, c, me);
    const int32_t *place = is_at_home(x, p) ? NULL : x->place_Q + staged(x, p, r, c, me).first;
    k->copy_rows(k->ctx, own.rows, s->hidden, rows_QH, place, x->rows, p->token + own.first);
    if (weight_Q) k->copy_rows(k->ctx, own.rows, 1, weight_Q, place, x->weight, p->slot + own.first);
    transport_request *pieces = x->outward[c];
    transport_arrive(x->transport, pieces);
    int n = 0; /* of the parts that start_messages named */
    for (int source = 0; source < s->ranks; source++) {
        if (source == me) continue;
        span in = staged(x, p, r, c, source);
        place = x->place_Q + in.first;
        const real *rows = transport_came(x->transport, pieces, n++, x->stage_QH + in.first * s->hidden);
        k->copy_rows(k->ctx, in.rows, s->hidden, rows_QH, place, rows, NULL);
        if (!weight_Q) continue;
        const real *weight = transport_came(x->transport, pieces, n++, x->stage_weight_Q + in.first);
        k->copy_rows(k->ctx, in.rows, 1, weight_Q, place, weight, NULL);
    }
    transport_taken(x->transport, pieces);
}

void exchange_give_back(exchange *x, const exchange_plan *p, int64_t r, int64_t c, const real *rows_QH,
                        const real *weight_Q) {
    const exchange_shape *s = &x->shape;
    const kernels *k = x->k;
    int me = comm_rank(x->group);
    x->answer_SH = is_at_home(x, p) ? rows_QH : x->send_SH;
    x->answer_weight_S = is_at_home(x, p) ? weight_Q : x->send_weight_S;
    if (is_at_home(x, p)) return;
    if (c == 0) settle(x, x->homeward);
    for (int source = 0; source < s->ranks; source++) {
        span in = staged(x, p, r, c, source);
        const int32_t *place = x->place_Q + in.first;
        int64_t own = source == me ? outgoing(s, p, r, c, me).first : 0;
        real *to = source == me ? x->send_SH + own * s->hidden : x->stage_QH + in.first * s->hidden;
        k->copy_rows(k->ctx, in.rows, s->hidden, to, NULL, rows_QH, place);
        if (!weight_Q) continue;
        real *to_weight = source == me ? x->send_weight_S + own : x->stage_weight_Q + in.first;
        k->copy_rows(k->ctx, in.rows, 1, to_weight, NULL, weight_Q, place);
    }
    x->homeward[c] = start_messages(x, p, r, c, "combine", 1, weight_Q != NULL);
}

void exchange_collect(exchange *x, const exchange_plan *p, int64_t r, int64_t c, int with_weight) {
    const exchange_shape *s = &x->shape;
    const kernels *k = x->k;
    transport_request *pieces = x->homeward[c];
    transport_arrive(x->transport, pieces);
    int n = 0;
    for (int peer = 0; transport_shares(x->transport) && peer < s->ranks; peer++) {
        if (peer == comm_rank(x->group)) continue;
        span out = outgoing(s, p, r, c, peer);
        k->copy(k->ctx, out.rows * s->hidden, x->send_SH + out.first * s->hidden,
                transport_came(x->transport, pieces, n++, NULL));
        if (with_weight)
            k->copy(k->ctx, out.rows, x->send_weight_S + out.first,
                    transport_came(x->transport, pieces, n++, NULL));
    }
    transport_taken(x->transport, pieces);
}

int64_t exchange_segments(const exchange *x, const exchange_plan *p, int64_t r, int64_t c,
                          const int *class_of, int class, segment *out) {
    const exchange_shape *s = &x->shape;
    int64_t local = s->experts / s->ranks, first = comm_rank(x->group) * local, n = 0;
    int64_t run_of = c < 0 ? s->joined : 1, c0 = c < 0 ? 0 : c, c1 = c < 0 ? s->chunks - 1 : c;
    for (int64_t e = 0; e < local; e++)
        for (int64_t source = 0; source < s->ranks; source += run_of) {
            if (class_of && class_of[source] != class) continue; /* joined sources are of one class */
            int64_t last = source + run_of - 1;
            int64_t begin = *start_at(s, p, first + e, source, c0);
            int64_t end = *start_at(s, p, first + e, last, c1) + *count_at(s, p, last, c1, first + e);
            span run = clip(s, p, r, first + e, begin, end);
            if (run.rows) out[n++] = (segment){run.first, run.rows, e};
        }
    return n;
}
