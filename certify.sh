#!/usr/bin/env bash
# What is proven about poisons, beside what attacks reach: certificates of clipped SGD, of votes of parts, and of votes with noise.
#
#   ./certify.sh subtask          behind it a number, or GPU=0 before it: on that CUDA device
#   POISONS="54 540" PARTS=1080 SEEDS=1 ./certify.sh subtask
#
# Results: results/certificates/<data set>_{stability,partition,noisy,attacks}.csv; python3 report.py makes their tables and figure.
# What is finished is not run again.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. ./common.bash

if [[ $# -lt 1 || $# -gt 2 ]]; then
    echo "usage: ./certify.sh <data set of two classes> [<gpu>]      e.g. subtask; -h for its settings" >&2
    exit 2
fi

slabs=                                                        # kept ones are of the subtask
[[ $1 != subtask ]] || slabs=$(printf 'datasets/poisons/indiscriminate/%s/fmnist_34_attack_eps10_quantile65_rho_slab.npz ' slabs slabs-release)

# Settings; each can be given in the environment
words POISONS "10 50 108 216 324 540 1080"                    # substituted rows, of 10,800
words CLIPS "0.03 0.1 0.3 1 2 4"                              # of the stability certificate
words RATES "0.01 0.06"                                       # of its learning rates
words BATCHES "100 300 1080"
DECAY=${DECAY-0.9}                                            # of the weights, each epoch, at rate 0.01 and batches of 300; none: without
words PARTS "50 100 200 400 1080 2160"
words SPREAD_PARTS "${SPREAD_PARTS-200 400}"                  # of finite aggregation, each row in 4 models
words SHAPED_PARTS "${SHAPED_PARTS-400 1080}"                 # clipped within a part
words NOISY "${NOISY-0.1:250 0.1:500 0.1:1000 0.1:2000}"      # a single step of all rows
words NOISY_STEPS "${NOISY_STEPS-1:200 1:400}"                # twenty steps of them
PAPERS_NOISES=${PAPERS_NOISES-4:0.0025 4:0.025 4:0.1}         # what a unanimous vote would certify, for one row
ATTACKED=${ATTACKED:-0.1 1 4}                                 # clip norms of the trainings that are attacked
SEEDS=${SEEDS:-1 2 3}                                         # of these
FILES=${FILES-$slabs}                                         # slabs of other makers
CANCELING=${CANCELING-0.1}                                    # poisons per clean row of Gradient Canceling, crafted for clip 0.1; none: without
use_python

words ATTACKED
words SEEDS
words FILES
words PAPERS_NOISES
GPU=${2:-${GPU:-}}
data=$1

certify() {
    python certify.py --dataset "$data" --certificate "$1" --poisons "${POISONS[@]}" ${GPU:+--gpu "$GPU"} ${check:+"$check"} "${@:2}"
}
for check in --check ""; do                                   # refuses wrong settings before anything is written
    certify stability --shaping "${CLIPS[@]}" --learning-rate "${RATES[@]}" --batch-size "${BATCHES[@]}" --epochs 5 20 40
    [[ -z $DECAY ]] || certify stability --shaping "${CLIPS[@]}" --learning-rate 0.01 --epochs 5 20 40 --decay "$DECAY"
    certify partition --parts "${PARTS[@]}" --learning-rate 0.05 --epochs 100
    certify partition --parts "${PARTS[@]}" --optimizer adam --learning-rate 0.01 --epochs 50
    [[ ${#SPREAD_PARTS[@]} -eq 0 ]] || certify partition --parts "${SPREAD_PARTS[@]}" --spread 4 --learning-rate 0.05 --epochs 100
    [[ ${#SHAPED_PARTS[@]} -eq 0 ]] || certify partition --parts "${SHAPED_PARTS[@]}" --shaping 1 --learning-rate 0.05 --epochs 100
    [[ ${#NOISY[@]} -eq 0 ]] || certify noisy --shaping "${NOISY[@]}" --learning-rate 0.1 --epochs 1
    [[ ${#NOISY_STEPS[@]} -eq 0 ]] || certify noisy --shaping "${NOISY_STEPS[@]}" --learning-rate 1 --epochs 20
    # the last --poisons counts
    [[ ${#PAPERS_NOISES[@]} -eq 0 ]] || certify noisy --unanimous --shaping "${PAPERS_NOISES[@]}" --rate 0.0277777 --epochs 1440 \
        --models 1000 --poisons 1
    [[ -n $check || -z $CANCELING ]] ||
        FILES+=("$(python -m poisons.gradient_canceling --dataset "$data" --ratio "$CANCELING" --shaping 0.1)")
    certify stability --attacks --shaping "${ATTACKED[@]}" --learning-rate 0.01 --epochs 40 --seed "${SEEDS[@]}" \
        ${FILES[@]:+--poison-file "${FILES[@]}"}
done
