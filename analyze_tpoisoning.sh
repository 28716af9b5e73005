#!/usr/bin/env bash
# The gradients of clean rows and of one clean-label poison while models of shopping baskets are re-trained (section 6 of the paper).
#
#   ./analyze_tpoisoning.sh purchases          behind it a number, or GPU=0 before it: on that CUDA device
#
# The target is the first on which the undefended one-shot attack succeeds, with the poison that did it; each model meets the poison that was crafted
# against it. Four re-trainings of 50 epochs, about 20 s in all on 2 cores.
# Results: results/analysis/tpoisoning/clean-labels/<data>/<model>/{analysis_results,mextracts_epoch,aextracts_epoch,sextracts_epoch,poison}.csv
# and gradients.png. What is finished is not run again.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. ./common.bash

if [[ $# -lt 1 || $# -gt 2 ]]; then
    echo "usage: ./analyze_tpoisoning.sh <data set> [<gpu>]      e.g. purchases; -h for its settings" >&2
    exit 2
fi

# Settings; each can be given in the environment
NETWORK=${NETWORK:-lr}
words SHAPINGS "undefended 0.1 4 4:0.025"
TARGETS=${TARGETS:-100}                                       # at most so many are tried
POISONS=${POISONS:-100}
EPOCHS=${EPOCHS:-50}
VICTIM_CLASS=${VICTIM_CLASS:-}                                # of the targets; 3 without
WANTED_CLASS=${WANTED_CLASS:-}                                # that they are to be taken for; 4 without
use_python
GPU=${2:-${GPU:-}}

attack=(attack_targets.py --dataset "$(own "$1")" --network "$(own "$NETWORK")" --mode oneshot --shaping "${SHAPINGS[@]}" --targets "$TARGETS"
    --poisons "$POISONS" --epochs "$EPOCHS" ${VICTIM_CLASS:+--victim-class "$VICTIM_CLASS"} ${WANTED_CLASS:+--wanted-class "$WANTED_CLASS"}
    --record ${GPU:+--gpu "$GPU"})
python "${attack[@]}" --check                                 # refuses wrong settings before anything is written
python "${attack[@]}"
python analyze_gradients.py -- "${RESULTS:-results}/analysis/tpoisoning"
