#!/bin/bash
# docs/experiments.md and its pictures from the runs of launch/experiments.sh, which calls this when all are there.
# Tables and pictures are made from the runs; the sentences around them were written for the runs of the repository's page.
set -eu
cd "$(dirname "$0")/.."
caracal=${CARACAL_BUILD:-build}/caracal
runs=runs/experiments
docs=docs/experiments
mkdir -p $docs

# A picture and the table of where its curves end.
curves() { # name, title, arms and options...
    local name=$1 title=$2
    shift 2
    printf '\n![%s](experiments/%s.svg)\n\n' "$title" "$name"
    (cd $runs && "$OLDPWD/$caracal" curves --out="$OLDPWD/$docs/$name.svg" --title="$title" "$@")
    echo
}

# A heading, when all runs that the section is about are there; otherwise the section is named at the end.
missing=
section() { # title, runs...
    local title=$1 run
    shift
    for run; do
        [ -e "$runs/$run/finished" ] || {
            missing="$missing, $title"
            return 1
        }
    done
    printf '\n## %s\n\n' "$title"
}

seeds() { # name: its runs with seeds 1, 2 and 3
    echo "$1.1,$1.2,$1.3"
}

{
    cat <<'END'
# Experiments

What the LongCat-Flash report (arXiv 2509.01322) says about training, tried at desk scale by `make experiments`: nano models on the demo's
five kinds of text, 60 to 200 steps of 2,048 tokens. The report's models are thousands of times as large and see millions of times as
much text. Where an effect appears here, it is at work in this code; where it does not, these runs may be too small for
it, and they say no more than that.

Runs with one seed read the same text in the same order. They have the 14 layers of `configs/nano-14.yaml`, or where it says so the 28 of
`configs/nano.yaml` or 4 of the same shape, and a cosine schedule that ends with the run. *Held-out* is the mean loss of 160 held-out
sequences of 256 tokens, 32 of each kind of text; *difference* is measured against the first line of a table (or of a panel), seed
by seed; ± is the sample deviation over seeds. Curves are means over ten steps. Experiments 1 and 2 have three seeds and show how
much one and the same model varies: read a difference of single runs with that in mind. Every run is one process with one thread; pictures and
tables are made by `caracal curves`.
END
    if section "1. ScMoE against sequential layers (Fig. 4)" shortcut.{1,2,3} sequential.{1,2,3}; then
        cat <<'END'
Does the shortcut, which lets the experts run beside the dense path, cost quality? The two kinds of layer are alike in parameters and
arithmetic; only what the experts read differs.
END
        curves shortcut "Shortcut (ScMoE) and sequential layers, three seeds each" --from=20 --smooth=10 \
            "shortcut=$(seeds shortcut)" "sequential=$(seeds sequential)"
        cat <<'END'
No difference is seen, as in the report, but these runs could not have shown a small one. Seed by seed the sequential runs differ from their
partners by +0.58, 0.00 and -0.08: the first is a run that met bursts of its gradient (a norm of 23 at step 73, clipped at 1) and did
not recover. Where nothing of the kind happens, the two kinds of layer cannot be told apart. That one run says nothing about stability either.
END
    fi
    if section "2. Identity experts against none, at equal compute (Fig. 3a)" shortcut.{1,2,3} no-identity.{1,2,3}; then
        cat <<'END'
Four FFN experts of sixteen per token: always four (K = 4, Z = 0), or four on average (K = 6, K_e = 4, Z = 8), more for some tokens
and fewer for others. The second row shows how many there were.
END
        curves identity "With and without identity experts, three seeds each" --from=20 --smooth=10 \
            --key=lm_loss=loss --key="ffn_experts_mean=FFN experts per token" \
            "8 identity experts=$(seeds shortcut)" "none=$(seeds no-identity)"
        cat <<'END'
The effect appears, and in every seed, although these runs used fewer than four FFN experts on average, so less compute than the
baseline. It is far larger than the report's, and we do not claim that its reason is the same: identity experts also give a young
layer a direct path from its input to its output, and six chosen experts reach more gradients than four. Telling these apart
would need an arm that must choose two identity experts for every token.
END
    fi
    if section "3. The budget (Fig. 3b, c)" shortcut.{1,2,3}; then
        cat <<'END'
FFN experts per token in each of the 14 layers, and their deviation over the tokens of a step, in the runs with identity experts of experiment 2: a cold start
with nano's own settings, (kp, ki, kd) = (0, 1, 0) and mu = 0.05.
END
        curves budget "FFN experts per token: thin lines are layers, the thick one is their mean" --lines=layers --smooth=10 --rule=K_e=4 \
            --key="ffn_experts_mean=FFN experts" --key="ffn_experts_std=deviation over tokens" \
            "seed 1=shortcut.1" "seed 2=shortcut.2" "seed 3=shortcut.3"
        cat <<'END'
The deviation does stay high, as in Fig. 3c, and differs between layers: some give every token about the same, some spread widely. The
convergence of Fig. 3b is only begun: after a swing the mean over layers climbs towards K_e, but at step 120 at most 4 of 14 layers are
within 1%, and the furthest is 20% away. Experiment 4 looks at what a faster controller costs.
END
    fi
    if section "4. Router control" router/{report,tuned,sign,tuned-28}; then
        cat <<'END'
The report's rule; the same rule with a gain of 24 for the budget (`router.bias_budget_gain`, mu = 0.05 as before); and a rule that moves a
bias by a fixed step, 0.001, whatever the error's size (`router.controller: sign`). All from a cold start; after step 140 the mixture jumps from
five kinds of text in equal parts to mathematics alone.
END
        curves router "Router control: thin lines are layers, the thick one is their mean" --lines=layers --smooth=20 --rule=K_e=4 \
            --mark="new mixture=140" --key="ffn_experts_mean=FFN experts" --key="ffn_experts_std=deviation over tokens" \
            --key="expert_load_max_over_mean=busiest expert over mean" \
            "(0, 1, 0)=router/report" "budget gain 24=router/tuned" "sign=router/sign"
        cat <<'END'
The report's rule moves each bias by its own expert's error. What all these errors have in common is the budget's, and it is small: a
layer with 3.2 experts instead of 4 shows each of sixteen an error of 0.008, while balance shows single experts several times that. So at a speed that
balance bears, the budget comes home slowly: a layer is 17% away before the change of mixture and 7% at the end. A larger mu for all is no way out:
mu = 1 with kp = 2 brought 12 of 14 layers home by step 160, with biases of -0.4 where a probability is 1/24 on average, tokens that all
took nearly the same experts and a busiest expert with four times the mean load. But the common part is a mean over all experts, and so nearly free of
one expert's count noise: it can have a gain of its own. With 24, means over twenty steps are within 1% in all 14 layers at the end of the first mixture
(the furthest is between 1.0% and 1.4% away from step 115 on), at most 1.7% away in the twenty steps after the jump, and within 0.6% in every layer from
step 175 to the end. Experts are as balanced as with the report's rule, and the loss is no worse: 5.52 on held-out text against 5.58 (one seed).
END
        curves router-28 "A gain of 24 for the budget at 28 layers" --lines=layers --smooth=20 --rule=K_e=4 \
            --mark="new mixture=140" --key="ffn_experts_mean=FFN experts" --key="ffn_experts_std=deviation over tokens" \
            --key="expert_load_max_over_mean=busiest expert over mean" "28 layers=router/tuned-28"
        cat <<'END'
At nano's 28 layers the same gain has all layers within 1% shortly before the jump (steps 101 to 120) and 26 of them in the last twenty steps before it, the furthest
1.2% away; the jump moves a layer by at most 2.6%, and from step 170 to the end all 28 are within 1%, the furthest 0.4% to 0.9% away.

A second seed, tried once and not drawn here, agrees about the loss (5.29 on held-out text against 5.41 with the report's rule) and about balance, but has 12 of 14
layers within 1% at both places and two that lag, 1.4% and 1.6% away (with the report's rule 14.6% and 12.4%): 24 is about right, not safely above what is needed.

What it does not do: in the first forty steps routers turn so fast that no gain holds them. Single steps stay within 1% in two cases of three over the last forty
steps; a batch's own sampling noise is 0.1% to 0.7% of the budget, and what one batch of eight sequences has to say differs more than that from the next. In one layer, the second,
24 is too much: it swings by 10% from step to step about a mean that is right. And tokens differ less: the deviation over tokens is 0.6 on average
as against 0.9, in the lowest layer 0.15 as against 0.57. Experiment 10 raises it. The sign rule has 4 of 14 layers home, before the jump and at the end.
END
    fi
    if section "5. Scale correction in MLA (Fig. 5a)" mla/{64,128,256}.{true,false}; then
        cat <<'END'
Widths 64, 128 and 256 with the same latent ranks, 64 and 32, so that the correction grows: alpha_q is 1, 1.4 and 2, alpha_kv 1.4, 2
and 2.8. Learning rates and initial variances follow the transfer rule from width 128. 4 layers, 100 steps, one seed.
END
        curves mla "MLA's scale correction on and off at three widths" --from=20 --smooth=10 \
            "width 64:on=mla/64.true" "width 64:off=mla/64.false" "width 128:on=mla/128.true" "width 128:off=mla/128.false" \
            "width 256:on=mla/256.true" "width 256:off=mla/256.false"
        cat <<'END'
The effect does not appear: at all three widths the run without the correction ends lower, by 0.27, 0.24 and 0.13. These are single runs, but
they agree. The correction makes up for latents that are too small at the start; with nano's initial deviation of 0.05 and so few
steps they may not be, and then larger queries and keys only make attention sharper too early. The gap narrows with the width, where
the correction is meant to help; these widths are too few to say more.
END
    fi
    if section "6. Model growth (Fig. 5b)" growth/{random,small,grown}.1; then
        cat <<'END'
14 layers for 48 steps, stacked to 28 by `caracal grow`, and on to step 83, against 28 layers from random initialisation for 60 steps:
the same FLOPs, for which the grown model has read 38% more text. One seed.
END
        curves growth "Growth from 14 to 28 layers, and 28 layers from random initialisation" --from=10 --smooth=10 --axis=flops \
            "random=growth/random.1" "grown=growth/small.1+growth/grown.1"
        cat <<'END'
The effect appears, in one run: for the same FLOPs the grown model ends 0.22 lower on held-out text. The rise after stacking that the report shows
is not seen at this scale. Most of the gain may be the text that a smaller model reads sooner, which is what
growth is for; a run long enough for depth to matter would tell more.
END
    fi
    if section "7. Hidden z-loss (Fig. 6)" z-loss/{0,1e-3}; then
        cat <<'END'
A learning rate ten times too high, 0.03, with and without the hidden z-loss (coefficient 0.001). 4 layers, 100 steps, one seed.
END
        curves z-loss "Hidden z-loss on and off at ten times the learning rate" --from=2 --smooth=4 \
            --key=lm_loss=loss --key="hidden_max=largest hidden activation" "off=z-loss/0" "on=z-loss/1e-3"
        cat <<'END'
Half of the effect appears. Without it the largest activation grows to 50,000, with it to a few hundred and back to 86. But the loss does not
gain from it: it ends 0.4 higher. A coefficient of 0.001 is large beside activations of hundreds, the report's is far
smaller, and nothing here diverged without it in 100 steps; we tried one coefficient and one learning rate.
END
    fi
    if section "8. Adam's epsilon (Fig. 7)" eps/1e-{4,6,16,20}; then
        cat <<'END'
Epsilon from 1e-4 to 1e-20, and below the loss the least root mean square among the gradients of the parameter groups, which epsilon
should stay far below. 4 layers, 100 steps, one seed.
END
        curves eps "Adam's epsilon" --from=20 --smooth=10 --key=lm_loss=loss --key="grad_rms_min=least gradient RMS" \
            1e-16=eps/1e-16 1e-4=eps/1e-4 1e-6=eps/1e-6 1e-20=eps/1e-20
        cat <<'END'
The effect appears. With 1e-4, ten times the least gradient RMS, the run ends 0.25 higher;
from 1e-6 on, a tenth of it, the results differ by 0.01, less than seeds do. Larger models have smaller gradients, hence the report's 1e-16.
END
    fi
    if section "9. Gamma for finer experts" gamma/{10,2.5} eps/1e-16; then
        cat <<'END'
Every expert cut in four: 64 of width 16, 32 identity experts, K = 24, K_e = 16, so that parameters and arithmetic stay. The routed scaling
factor is multiplied by four, which keeps the variance of the layer's output at the start, or left at 2.5. 4 layers, 100 steps, one seed.
END
        curves gamma "Experts cut in four, with and without gamma" --from=20 --smooth=10 \
            "gamma 10=gamma/10" "gamma 2.5=gamma/2.5" "experts whole=eps/1e-16"
        cat <<'END'
The effect does not appear. With gamma the finer experts follow the whole ones closely, which is what equal variance at the start should
give, but without it the run ends 0.14 lower, not higher. That is within what seeds do to one model, and smaller contributions of
the experts may suit so short a training.
END
    fi
    if section "10. R_g kept at 0.1" router/{tuned,pressure}; then
        cat <<'END'
The run with a budget gain of experiment 4, where the load-balance loss has nano's coefficient of 0.001, and the same with
`router.grad_ratio_target: 0.1`, which begins at 0.0001 and moves the coefficient after every step.
END
        curves pressure "R_g, the pressure of balance: thin lines are layers, the thick one is their mean" --lines=layers --smooth=20 \
            --rule=K_e=4 --mark="new mixture=140" --key="ffn_experts_mean=FFN experts" --key="router_grad_ratio=R_g" \
            --key="ffn_experts_std=deviation over tokens" "coefficient 0.001=router/tuned" "R_g 0.1=router/pressure"
        cat <<'END'
R_g is kept: over the steps from 20 on the worst layer's is 0.09 in the middle, above 0.1 in four steps of ten, as a target must be, and the
coefficient ends at 0.00006; with 0.001 the worst layer's R_g falls from 10 to 1.6. The budget is kept as well at the end, 14 of 14
layers, but takes longer after the jump. Tokens differ more, 0.88 experts on average and 0.60 in the lowest layer, as much as with the
report's rule in experiment 4. It is not free at this scale: experts are uneven for longer, the busiest ends at 1.33 times the mean load
instead of 1.26, and the loss is higher, 5.64 on held-out text instead of 5.52 (one seed). In so short a run the load-balance loss
does more for the router than it takes from the language loss; that says nothing of runs ten thousand times as long.
END
    fi
    if [ -n "$missing" ]; then printf '\nNot made yet: %s.\n' "${missing#, }"; fi
} >docs/experiments.md
