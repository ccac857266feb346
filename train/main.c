/* Caracal: a distributed pretraining framework for LongCat-Flash-style mixture-of-experts language models. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/ckpt.h"
#include "data/commands.h"
#include "launch/error.h"
#include "train/compare.h"
#include "train/curves.h"
#include "train/diff.h"
#include "train/evaluate.h"
#include "train/export.h"
#include "train/generate.h"
#include "train/grow.h"
#include "train/import.h"
#include "train/plan.h"
#include "train/report.h"
#include "train/sweep.h"
#include "train/trainer.h"

static int data_command(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "build")) return data_build_command(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "ngram")) return data_ngram_command(argc - 1, argv + 1);
    int asked = argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
    if (argc > 1 && !asked) notice("data %s: no such command", argv[1]);
    fputs("usage: caracal data build|ngram ...      (caracal data build --help says more)\n",
          asked ? stdout : stderr);
    return asked ? 0 : EXIT_USAGE;
}

static const struct command {
    const char *name, *usage;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"train",
     "CONFIG [--resume=auto|none|PATH] [--init-from=CKPT] [--exit-after=DURATION] [--trace=STEPS] "
     "[--section.key=value ...]",
     train_command},
    {"sweep", "CONFIG --over=KEY=VALUE,VALUE,... [--trials=N] [--target=CONFIG --out=FILE]", sweep_command},
    {"evaluate", "CKPT [--samples=N | --choices=FILE.jsonl]", evaluate_command},
    {"generate", "CKPT --prompt=TEXT [--tokens=64] [--temperature=0] [--top-p=1] [--seed=1]",
     generate_command},
    {"grow", "CKPT OUT [--times=2]", grow_command},
    {"export", "CKPT DIR [--dtype=float32|bf16] [--max-shard-size=5GB]", export_command},
    {"import", "DIR RUN_DIR [--config=CONFIG]", import_command},
    {"plan", "CONFIG [--ranks=N] [--hosts=N]", plan_command},
    {"tokenizer", "train|encode|decode ...", data_tokenizer_command},
    {"data", "build|ngram ...", data_command},
    {"compare", "RUN_DIR RUN_DIR ... [--out=compare.html]", compare_command},
    {"curves", "[PANEL:]NAME=RUN_DIR[,RUN_DIR...] ... [--key=lm_loss] [--out=curves.svg]", curves_command},
    {"report", "RUN_DIR [--mark=LABEL:LOSS ...]", report_command},
    {"inspect", "CKPT", ckpt_inspect_command},
    {"verify", "CKPT", ckpt_verify_command},
    {"diff", "A B", diff_command},
};

static void usage(FILE *out) {
    fprintf(out, "usage: caracal COMMAND ...      (mpirun -np N caracal train ... for several ranks)\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(out, "  caracal %-10s %s\n", commands[i].name, commands[i].usage);
    fputs("\ncaracal COMMAND --help says more; caracal train --help lists every key of a config.\n", out);
}

/* Commands that share no work: several processes would write over one another, or all say the same. */
static int refuse_ranks(const char *name) {
    static const char *const alone[] = {"tokenizer", "data",   "import",  "plan",  "compare",
                                        "curves",    "report", "inspect", "verify"};
    size_t i = 0, n = sizeof alone / sizeof *alone;
    while (i < n && strcmp(name, alone[i])) i++;
    if (i == n) return 0;
    const char *size = getenv("OMPI_COMM_WORLD_SIZE"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (!size || atoi(size) < 2) return 0;
    if (rank && !strcmp(rank, "0")) notice("%s is one process: start it without mpirun", name);
    return EXIT_USAGE;
}

/* What most commands have to say goes to standard output, which may be a file on a full disk; of a run it is
 * not what counts. */
static int told(const struct command *c, int code) {
    if (code || c->run == train_command || c->run == sweep_command) return code;
    errno = 0;
    if (!fflush(stdout) && !ferror(stdout)) return 0;
    notice("standard output cannot be written: %s", strerror(errno ? errno : EIO));
    return EXIT_IO;
}

int main(int argc, char **argv) {
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is a failed write, with a message */
    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        usage(stdout);
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(argv[1], commands[i].name)) {
            int code = refuse_ranks(argv[1]);
            return code ? code : told(&commands[i], commands[i].run(argc - 1, argv + 1));
        }
    notice("there is no command '%s'\n", argv[1]);
    usage(stderr);
    return EXIT_USAGE;
}
