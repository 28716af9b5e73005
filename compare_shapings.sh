#!/usr/bin/env bash
# Every kind of gradient shaping, on clean rows and against poisons, over seeds: a logistic regression on the binary subtask by default.
#
#   ./compare_shapings.sh subtask 0        0 is the CUDA device; without a GPU the CPU is used
#
# Shapings x poison sets x seeds trainings of 40 epochs, all shapings of a poison set and seed as one stack: about 14 minutes on 2 cores.
# Results: results/ipoisoning/<attack>/<poison set>/<model>/attack_results.csv, and results/tables/shapings.csv by report.py. What is finished
# is not run again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if [[ $# -ne 2 ]]; then
    echo "usage: ./compare_shapings.sh <data set> <gpu>        e.g. subtask 0" >&2
    exit 2
fi
case $1 in
    subtask | fashion_mnist_3_4.1.0) against="none label-flips:0.4 slabs:0.1 slabs:0.4" network=lr trusted=trusted:100 ;;
    fashion_mnist) against="none label-flips:0.4" network=shallow-mlp trusted= ;;
    *) against="none label-flips:0.4" network=lr trusted= ;;
esac
shapings="undefended 4 1 0.1 clip-layers:1 auto-s:0.01 auto-v psac:1:0.1 quantile-clip:0.5:0.2:1 drop-norm:0.1
    trim-loss:0.1 trim-loss:0.3 phuber:10 phuber:2 gce:0.7 linear
    geometric-median:0.1:0 geometric-median:0.1:10 multi-krum:0.3:0 multi-krum:0.3:30 sever:0.3
    median-of-means:10 trimmed-mean:0.3:30 centered-clip:1 cosine:0 running-cosine:0:0.9 $trusted
    abl:0.5:10:0.01 epic:0.2:5:20 clip:1@5,phuber:2 clip:1@5,linear phuber:2+clip:1"

# Settings; each can be given in the environment, e.g. SHAPINGS="4 phuber:2" SEEDS="1 2" ./compare_shapings.sh subtask 0
read -ra AGAINST <<< "${AGAINST:-$against}"                   # attack:ratio, and none: the clean rows alone
read -ra SHAPINGS <<< "$(tr '\n' ' ' <<< "${SHAPINGS:-$shapings}")"
read -ra SEEDS <<< "${SEEDS:-1 2 3 4 5 6 7 8 9 10}"
NETWORK=${NETWORK:-$network}
EPOCHS=${EPOCHS:-}                                            # the paper's, without
export PYTHON=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}

for seed in "${SEEDS[@]}"; do
    poisons=()
    for one in "${AGAINST[@]}"; do
        if [[ $one == none ]]; then
            poisons+=(none)
        else
            poisons+=("$("$PYTHON" -m poisons --attack "${one%:*}" --dataset "$1" --ratio "${one##*:}" --seed "$seed")")
        fi
    done
    "$PYTHON" train.py --dataset "$1" --network "$NETWORK" --gpu "$2" --poison "${poisons[@]}" --seed "$seed" \
        --shaping "${SHAPINGS[@]}" ${EPOCHS:+--epochs "$EPOCHS"}
done
