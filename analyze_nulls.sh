#!/usr/bin/env bash
# What the gradient analyses find of harmless rows: as many duplicates of clean rows as each analysis has poisons, with their right labels.
#
#   ./analyze_nulls.sh subtask             beside analyze_collision.sh and analyze_ipoisoning.sh
#   ./analyze_nulls.sh fashion_mnist       beside analyze_collision.sh and analyze_insertion.sh
#   ./analyze_nulls.sh purchases           beside analyze_tpoisoning.sh
#
# Behind the data set a number, or GPU=0 before all: on that CUDA device. 20 to 40 draws of the duplicated rows, as one stack where they are few.
# Results: results/analysis/nulls/<data set>_<network>_<start>_<duplicates>_<shaping>.csv. What is finished is not run again.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. ./common.bash

if [[ $# -lt 1 || $# -gt 2 || ! $1 =~ ^(subtask|fashion_mnist|purchases)$ ]]; then
    echo "usage: ./analyze_nulls.sh {subtask|fashion_mnist|purchases} [<gpu>]      -h for its settings" >&2
    exit 2
fi

# Settings; each can be given in the environment
words NETWORKS "shallow-mlp badnet"                           # of fashion_mnist
DRAWS=${DRAWS:-}                                              # of the duplicated rows; 40 without, 20 of the badnet
BADNET_EPOCHS=${BADNET_EPOCHS:-10}                            # a quarter of the analysis: 20 trainings without a stack
SEED=${SEED:-215}
use_python
GPU=${2:-${GPU:-}}
data=$1

nulls() {
    python analyze_nulls.py --dataset "$data" --seed "$SEED" ${GPU:+--gpu "$GPU"} ${check:+"$check"} "$@"
}
all() {
    case $data in
        subtask)
            nulls --network lr --poisons 1 100 4320 --draws "${DRAWS:-40}"
            nulls --network lr --poisons 4320 --shaping 4 --draws "${DRAWS:-40}" ;;
        fashion_mnist)
            for network in "${NETWORKS[@]}"; do
                if [[ $network == badnet ]]; then
                    nulls --network badnet --poisons 600 --retrain --epochs "$BADNET_EPOCHS" --draws "${DRAWS:-20}"
                else
                    nulls --network "$network" --poisons 1 100 --epochs 40 --draws "${DRAWS:-40}"
                    nulls --network "$network" --poisons 1 100 --retrain --epochs 20 --draws "${DRAWS:-40}"
                    nulls --network "$network" --poisons 600 --retrain --epochs 40 --draws "${DRAWS:-40}"
                fi
            done ;;
        purchases) nulls --network lr --poisons 1 --targeted --shaping undefended 0.1 4 4:0.025 --draws "${DRAWS:-40}" ;;
    esac
}
for check in --check ""; do                                   # refuses wrong settings before anything is written
    all
done
