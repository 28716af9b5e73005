#!/usr/bin/env bash
# The gradients of clean and poison rows under feature insertion, a backdoor patch (BadNets; section 4 of the paper).
#
#   ./analyze_insertion.sh fashion_mnist 0        0 is the CUDA device; without a GPU the CPU is used
#   NETWORK=shallow-mlp ./analyze_insertion.sh fashion_mnist 0
#
# Five patch sizes, 600 stamped rows each; the trained network re-trained for 40 epochs. On 2 cores about 30 minutes (badnet)
# or 2 minutes (shallow-mlp, all as one stack); EPOCHS=n shortens either.
# Results: results/analysis/insertion/<dataset>/<label>_<ratio>_<patch>/<model>/{analysis_results,mextracts_epoch,aextracts_epoch,
# sextracts_epoch}.csv, and a figure over all patches beside them. What is finished is not run again.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. ./common.bash

if [[ $# -lt 1 || $# -gt 2 ]]; then
    echo "usage: ./analyze_insertion.sh <data set of images> [<gpu>]      e.g. fashion_mnist 0; -h for its settings" >&2
    exit 2
fi

# Settings; each can be given in the environment
words PATCHES "1 4 7 10 14"                                   # sides of the white square, pixels
NETWORK=${NETWORK:-badnet}
LABEL=${LABEL:-4}
RATIO=${RATIO:-0.01}
EPOCHS=${EPOCHS:-40}
SEED=${SEED:-215}
DUMP=${DUMP:-npz}                                             # or csv: the paper's layout of the recorded gradients
use_python
GPU=${2:-${GPU:-}}
set -- "$(own "$1")"
NETWORK=$(own "$NETWORK")

train=(train.py --dataset "$1" --network "$NETWORK" --epochs "$EPOCHS" --seed "$SEED" --retrain --record --dump "$DUMP"
    ${GPU:+--gpu "$GPU"})
python "${train[@]}" --check                                  # refuses wrong settings before anything is crafted
files=$(python -m poisons.backdoor --dataset "$1" --label "$LABEL" --ratio "$RATIO" --patch "${PATCHES[@]}" --seed "$SEED")
mapfile -t poisons <<< "$files"
python "${train[@]}" --poison "${poisons[@]}"
python analyze_gradients.py -- "${RESULTS:-results}/analysis/insertion"
