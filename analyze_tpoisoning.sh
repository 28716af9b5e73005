#!/usr/bin/env bash
# The gradients of clean rows and of one clean-label poison while models of shopping baskets are re-trained (section 6 of the paper).
#
#   ./analyze_tpoisoning.sh purchases
#
# The target is the first on which the undefended one-shot attack succeeds, with the poison that did it; each model meets the poison that was crafted
# against it. Four re-trainings of 50 epochs, about 20 s in all on 2 cores.
# Results: results/analysis/tpoisoning/clean-labels/<data>/<model>/{analysis_results,mextracts_epoch,aextracts_epoch,sextracts_epoch,poison}.csv
# and gradients.png. What is finished is not run again.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. ./common.bash

if [[ $# -ne 1 || $1 != purchases ]]; then
    echo "usage: ./analyze_tpoisoning.sh purchases" >&2
    exit 2
fi

# Settings; each can be given in the environment
NETWORK=${NETWORK:-lr}
words SHAPINGS "undefended 0.1 4 4:0.025"
TARGETS=${TARGETS:-100}                                       # at most so many are tried
POISONS=${POISONS:-100}
EPOCHS=${EPOCHS:-50}
use_python

python attack_targets.py --dataset "$1" --network "$NETWORK" --mode oneshot --shaping "${SHAPINGS[@]}" --targets "$TARGETS" \
    --poisons "$POISONS" --epochs "$EPOCHS" --record
python analyze_gradients.py -- "${RESULTS:-results}/analysis/tpoisoning"
