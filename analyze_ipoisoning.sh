#!/usr/bin/env bash
# The gradients of clean and poison rows under indiscriminate attacks, undefended and with clip norm 4 (sections 4 and 5 of the paper).
#
#   ./analyze_ipoisoning.sh subtask
#   ./analyze_ipoisoning.sh purchases      or any other data set, with the attacks that can poison it
#
# One ratio x (undefended, clip 4) = 2 trainings an attack; of the subtask for 40 epochs about 8 s each on 2 cores.
# Results: results/analysis/ipoisoning/<attack>/<poison set>/<model>/{analysis_results,mextracts_epoch,aextracts_epoch,sextracts_epoch}.csv
# and gradients.png. What is finished is not run again.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. ./common.bash

if [[ $# -ne 1 ]]; then
    echo "usage: ./analyze_ipoisoning.sh <data set>        e.g. subtask; -h for its settings" >&2
    exit 2
fi
case $1 in
    subtask | fashion_mnist_3_4.1.0) attacks="label-flips slabs" network=lr epochs= ;;
    fashion_mnist) attacks=label-flips network=shallow-mlp epochs=40 ;;      # as the paper analyses it from scratch
    *) attacks=label-flips network=lr epochs= ;;
esac

# Settings; each can be given in the environment
words ATTACKS "$attacks"
words RATIOS "0.4"
words NORMCLP "4"
SHAPINGS=${SHAPINGS:-}                                        # instead: a list as train.py --shaping takes it
NETWORK=${NETWORK:-$network}
EPOCHS=${EPOCHS:-$epochs}                                     # the paper's, without
SEED=${SEED:-215}
DUMP=${DUMP:-npz}                                             # or csv: the paper's layout of the recorded gradients
use_python
set -- "$(own "$1")" "${@:2}"
NETWORK=$(own "$NETWORK")
shaping=(--undefended --clip-norm "${NORMCLP[@]}")
if [[ -n $SHAPINGS ]]; then
    words SHAPINGS
    shaping=(--shaping "${SHAPINGS[@]}")
fi

train=(train.py --dataset "$1" --network "$NETWORK" --seed "$SEED" "${shaping[@]}" --record --dump "$DUMP"
    ${EPOCHS:+--epochs "$EPOCHS"} ${GPU:+--gpu "$GPU"})
python "${train[@]}" --check                                  # refuses wrong settings before anything is crafted
files=$(python -m poisons --attack "${ATTACKS[@]}" --dataset "$1" --ratio "${RATIOS[@]}" --seed "$SEED")
mapfile -t poisons <<< "$files"
python "${train[@]}" --poison "${poisons[@]}"
python analyze_gradients.py -- "${RESULTS:-results}/analysis/ipoisoning"
