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
five kinds of text, 60 to 160 steps of 2,048 tokens. The report's models are thousands of times as large and see millions of times as
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
    if section "4. Router control" router/{report,tuned,sign}; then
        cat <<'END'
The report's rule, gains tuned for the budget (mu = 1, kp = 2, ki = 1), and a rule that moves a bias by a fixed step, 0.001, whatever the
error's size (`router.controller: sign`), from a cold start; after step 80 the mixture jumps from five kinds of text in equal parts to mathematics alone.
END
        curves router "Router control: thin lines are layers, the thick one is their mean" --lines=layers --smooth=20 --rule=K_e=4 \
            --mark="new mixture=80" --key="ffn_experts_mean=FFN experts" --key="ffn_experts_std=deviation over tokens" \
            --key="expert_load_max_over_mean=busiest expert over mean" \
            "(0, 1, 0)=router/report" "tuned=router/tuned" "sign=router/sign"
        cat <<'END'
The report's rule at nano's speed (mu = 0.05) balances the experts, the busiest ends near 1.3 times the mean, but brings the budget
home slowly: before the change of mixture a layer lies up to a quarter away, and at the end of the run up to 8%. The tuned gains hold
the budget through the change, 12 of 14 layers within 1% and the furthest within 3%, but by brute force: biases reach -0.4 where a
probability is 1/24 on average, the tokens of a step take nearly the same experts, the busiest has four times the mean load, and in
some layers the deviation over tokens falls below a tenth. Such gains are not worth having: they were tuned for the wrong
figure. The sign rule lies between; its layers still swing about K_e by up to 8% at the end. None of the three has every layer
within 1% of K_e after 160 steps; with (0, 1, 0) 3 of 14 are, with the sign rule 6.
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
    if [ -n "$missing" ]; then printf '\nNot made yet: %s.\n' "${missing#, }"; fi
} >docs/experiments.md
