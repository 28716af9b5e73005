#!/usr/bin/env bash
# Indiscriminate poisoning, undefended and under DP-SGD (section 5 of the paper: a logistic regression on the binary subtask).
#
#   ./do_ipoisoning.sh subtask 0        0 is the CUDA device; without a GPU the CPU is used
#   ./do_ipoisoning.sh purchases 0      or any other data set, with the attacks that can poison it
#
# 9 ratios x (undefended + 5 clip norms x 4 noises) = 189 trainings an attack; of the subtask for 40 epochs 14 to 17 s on 2 cores.
# Attacks: label-flips, slabs, slabs-release (both kept in the repository), minmax (crafted on demand, 2 minutes for all ratios), and any
# other of poisons/ that takes a ratio (python3 -m poisons --help).
# Results: results/ipoisoning/<attack>/<poison set>/<model>/attack_results.csv. What is finished is not run again.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. ./common.bash

if [[ $# -lt 1 || $# -gt 2 ]]; then
    echo "usage: ./do_ipoisoning.sh <data set> [<gpu>]      e.g. subtask 0; -h for its settings" >&2
    exit 2
fi
case $1 in
    subtask | fashion_mnist_3_4.1.0) attacks="label-flips slabs slabs-release" network=lr ;;
    fashion_mnist) attacks=label-flips network=shallow-mlp ;;
    *) attacks=label-flips network=lr ;;
esac

# Settings; each can be given in the environment, e.g. NORMCLP="1 4" EPOCHS=5 ./do_ipoisoning.sh subtask 0
words ATTACKS "$attacks"
words RATIOS "0.01 0.02 0.03 0.04 0.05 0.1 0.2 0.3 0.4"
words NORMCLP "0.1 1 2 4 8"                                   # clip norms
words NOISE_STD "${NOISEML:-0 0.1 0.001 0.00001}"             # standard deviations of the noise; NOISEML is its old name
SHAPINGS=${SHAPINGS:-}                                        # instead of both: a list as train.py --shaping takes it
NETWORK=${NETWORK:-$network}
EPOCHS=${EPOCHS:-}                                            # the paper's, without
SEED=${SEED:-215}                                             # of the training, and of the rows that label flips draw
use_python
GPU=${2:-${GPU:-}}
set -- "$(own "$1")" "${@:2}"
NETWORK=$(own "$NETWORK")
shaping=(--undefended --clip-norm "${NORMCLP[@]}" --noise-std "${NOISE_STD[@]}")
if [[ -n $SHAPINGS ]]; then
    words SHAPINGS
    shaping=(--shaping "${SHAPINGS[@]}")
fi

train=(train.py --dataset "$1" --network "$NETWORK" --seed "$SEED" "${shaping[@]}" ${EPOCHS:+--epochs "$EPOCHS"} ${GPU:+--gpu "$GPU"})
python "${train[@]}" --check                                  # refuses wrong settings before anything is crafted
files=$(python -m poisons --attack "${ATTACKS[@]}" --dataset "$1" --ratio "${RATIOS[@]}" --seed "$SEED")
mapfile -t poisons <<< "$files"
python "${train[@]}" --poison "${poisons[@]}"
