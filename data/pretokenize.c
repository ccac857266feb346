#include "data/pretokenize.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "data/utf8.h"
#include "launch/memory.h"

/* Two regex engines must agree on every character: PCRE2 here, Oniguruma in the `tokenizers` library.  So the
 * pattern leans on nothing in which they differ:
 *   - \s is not used: PCRE2 counts U+180E as a space, Oniguruma does not;
 *   - \p{Han} is not used: PCRE2 takes it as a script extension, Oniguruma as a script.  Ranges instead;
 *   - \p{L} and \p{N} follow the library's Unicode version (14 in PCRE2 10.42, 16 in Oniguruma 6.9.10).
 *     Characters that became letters or numbers in Unicode 15 to 18 are listed in LATER and count as symbols,
 *     so that a library's update never changes the ids of a text.  The ranges run over neighbours that were
 *     symbols or unassigned in Unicode 14 anyway.
 * GPT-4's [^\s\p{L}\p{N}] is spelled as the union of what remains, because neither engine's syntax can add
 * LATER to a negated class. */
#define CJK                                                                                                  \
    "\\x{1100}-\\x{11FF}\\x{3131}-\\x{318E}\\x{A960}-\\x{A97C}\\x{AC00}-\\x{D7FB}" /* Hangul */              \
    "\\x{3041}-\\x{3096}\\x{309D}-\\x{309F}"                                       /* Hiragana */            \
    "\\x{30A1}-\\x{30FA}\\x{30FC}-\\x{30FF}\\x{31F0}-\\x{31FF}"                    /* Katakana */            \
    "\\x{FF66}-\\x{FFDC}\\x{1AFF0}-\\x{1AFFE}" /* halfwidth and extended kana */                             \
    "\\x{1B000}-\\x{1B122}\\x{1B150}-\\x{1B152}\\x{1B164}-\\x{1B167}"                                        \
    "\\x{3005}-\\x{3007}\\x{3021}-\\x{3029}\\x{3031}-\\x{3035}\\x{3038}-\\x{303C}" /* Han marks */           \
    "\\x{3400}-\\x{4DBF}\\x{4E00}-\\x{9FFF}\\x{F900}-\\x{FAFF}"                    /* Han */                 \
    "\\x{20000}-\\x{2B738}\\x{2B740}-\\x{2B81D}\\x{2B820}-\\x{2CEA1}\\x{2CEB0}-\\x{2EBE0}"                   \
    "\\x{2F800}-\\x{2FA1F}\\x{30000}-\\x{3134A}"
#define LATER                                                                                                \
    "\\x{558}\\x{58B}-\\x{58C}\\x{88F}\\x{C5C}\\x{CDC}\\x{1C89}-\\x{1C8A}\\x{208F}"                          \
    "\\x{209D}-\\x{209F}\\x{A7CB}-\\x{A7CF}\\x{A7D2}\\x{A7D4}\\x{A7DA}-\\x{A7F1}"                            \
    "\\x{AB6C}-\\x{AB6D}\\x{105C0}-\\x{105F3}\\x{107BB}-\\x{107BF}\\x{10940}-\\x{10959}"                     \
    "\\x{10D40}-\\x{10D85}\\x{10EC2}-\\x{10EEE}\\x{1123F}-\\x{11240}\\x{11380}-\\x{113D3}"                   \
    "\\x{116D0}-\\x{116E3}\\x{11B0A}-\\x{11BF9}\\x{11DB0}-\\x{11DF1}\\x{11F02}-\\x{11F59}"                   \
    "\\x{1246F}-\\x{1247F}\\x{12550}-\\x{12686}\\x{1342F}-\\x{143FA}\\x{16100}-\\x{16139}"                   \
    "\\x{16D40}-\\x{16D79}\\x{16EA0}-\\x{16ED3}\\x{16FF2}-\\x{16FF6}\\x{187F8}-\\x{187FF}"                   \
    "\\x{18CD6}-\\x{18CFF}\\x{18D09}-\\x{191D2}\\x{1B123}-\\x{1B132}\\x{1B155}\\x{1B168}"                    \
    "\\x{1CCF0}-\\x{1D2D3}\\x{1D6A6}\\x{1DF1F}-\\x{1E06D}\\x{1E4D0}-\\x{1E6FF}"                              \
    "\\x{2B739}-\\x{2B73F}\\x{2B81E}\\x{2CEA2}-\\x{2CEAD}\\x{2EBF0}-\\x{2EE5D}"                              \
    "\\x{31350}-\\x{3FC3F}"

#define SPACE     "\\p{White_Space}"
#define NOT_SPACE "\\P{White_Space}"
#define LETTER    "[^\\P{L}" CJK LATER "]"
#define DIGIT     "[^\\P{N}" LATER "]"
#define OTHER     "\\p{M}\\p{P}\\p{S}\\p{Cf}\\p{Co}\\p{Cn}" LATER /* symbols, marks, unassigned */
#define SYMBOL    "[\\x{00}-\\x{08}\\x{0E}-\\x{1F}\\x{7F}-\\x{84}\\x{86}-\\x{9F}" OTHER "]"
/* what may lead a word: a symbol or a space, but no line end */
#define LEAD "[\\x{00}-\\x{09}\\x{0B}-\\x{0C}\\x{0E}-\\x{1F}\\x{7F}-\\x{9F}\\p{Z}" OTHER "]"

const char pretokenize_pattern[] = "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])" /* 's 'd 'm 't 'll 've 're */
                                   "|[" CJK "]+"
                                   "|" LEAD "?" LETTER "+"
                                   "|" DIGIT "| ?" SYMBOL "+[\\r\\n]*"
                                   "|" SPACE "*[\\r\\n]+" /* blank lines, with the spaces before them */
                                   "|" SPACE "+(?!" NOT_SPACE ")" /* leave one space to lead what follows */
                                   "|" SPACE "+";

struct pretokenizer {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

int pretokenizer_open(pretokenizer **out, const char *pattern, error *e) {
    int code;
    PCRE2_SIZE at;
    /* \C would end pieces inside a character, from where PCRE2 cannot go on */
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                         PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    if (!compiled) {
        char why[160];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return error_set(e, EXIT_CORRUPT, "PCRE2 refuses the pre-tokeniser's pattern at character %zu: %s",
                         at, why);
    }
    /* without JIT (an unusual build of PCRE2) matching is slower and gives the same pieces */
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);

    pretokenizer *p = mem_alloc(sizeof *p, "a pre-tokeniser");
    p->code = compiled;
    p->match = pcre2_match_data_create(1, NULL);
    p->context = pcre2_match_context_create(NULL);
    p->stack = pcre2_jit_stack_create(32 << 10, 8 << 20, NULL);
    if (!p->match || !p->context || !p->stack) FAULT(EXIT_NO_MEMORY, "out of memory for PCRE2");
    pcre2_jit_stack_assign(p->context, NULL, p->stack);
    pcre2_set_match_limit(p->context, UINT32_MAX); /* a long run of spaces takes a step for each of them */
    *out = p;
    return 0;
}

void pretokenizer_close(pretokenizer *p) {
    if (!p) return;
    pcre2_jit_stack_free(p->stack);
    pcre2_match_context_free(p->context);
    pcre2_match_data_free(p->match);
    pcre2_code_free(p->code);
    mem_free(p);
}

int pretokenize_next(pretokenizer *p, piece_walk *w, const char **piece, size_t *bytes) {
    if (w->at == w->bytes) return 0;
    *piece = w->text + w->at;
    *bytes = 1;
    if (w->at >= w->valid_to) {
        size_t valid = utf8_valid_prefix(*piece, w->bytes - w->at);
        if (!valid) {
            w->at++;
            return 1;
        }
        w->valid_from = w->at;
        w->valid_to = w->at + valid;
    }
    /* The subject is the well-formed stretch alone, so that PCRE2 need not check it again. */
    int found = pcre2_match(p->code, (PCRE2_SPTR)w->text + w->valid_from, w->valid_to - w->valid_from,
                            w->at - w->valid_from, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, p->match, p->context);
    size_t start = w->valid_to, end = w->valid_to;
    if (found > 0) {
        const PCRE2_SIZE *o = pcre2_get_ovector_pointer(p->match);
        start = w->valid_from + o[0];
        end = w->valid_from + o[1];
    } else if (found != PCRE2_ERROR_NOMATCH) {
        char why[160];
        pcre2_get_error_message(found, (PCRE2_UCHAR *)why, sizeof why);
        FAULT(EXIT_CORRUPT, "the pre-tokeniser's pattern fails on a text: %s", why);
    }
    if (start > w->at) end = start; /* text that a foreign pattern does not match is a piece too */
    *bytes = end - w->at;
    w->at = end;
    return 1;
}
