#!/usr/bin/env bash
# The gradients of clean and poison rows under feature collision, watermarks of one class in another (section 4 of the paper).
#
#   ./analyze_collision.sh subtask {one|multi}          logistic regression from scratch, 40 epochs
#   ./analyze_collision.sh fashion_mnist {one|multi}    the trained shallow MLP re-trained, 20 epochs (folders <pairs>_retrain)
#   SCRATCH=1 ./analyze_collision.sh fashion_mnist {one|multi}    the MLP from scratch, 40 epochs, as published
#
# Six trainings, one for each alpha, as one stack; on 2 cores about 7 s (subtask), 55 s and 2 minutes (fashion_mnist).
# Results: results/analysis/collision/<pairs>[_retrain]/<dataset>/alpha_<alpha>/<model>/{analysis_results,mextracts_epoch,aextracts_epoch,
# sextracts_epoch}.csv, and a figure over all alphas beside them. What is finished is not run again.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. ./common.bash

if [[ $# -ne 2 || ! $1 =~ ^(subtask|fashion_mnist)$ || ! $2 =~ ^(one|multi)$ ]]; then
    echo "usage: ./analyze_collision.sh {subtask|fashion_mnist} {one|multi}" >&2
    exit 2
fi

# Settings; each can be given in the environment
words ALPHAS "0.1 0.2 0.4 0.6 0.8 1.0"                        # the share of the other class's row
SCRATCH=${SCRATCH:-0}
SEED=${SEED:-215}
EPOCHS=${EPOCHS:-}                                            # the paper's, without
DUMP=${DUMP:-npz}                                             # or csv: the paper's layout of the recorded gradients
use_python
[[ $SCRATCH =~ ^[01]$ ]] || refuse "SCRATCH=$SCRATCH: give 0, to re-train the trained network, or 1, to train from initial weights"
case $1-$SCRATCH in
    subtask-*) network=lr epochs=40 start=() ;;
    fashion_mnist-0) network=shallow-mlp epochs=20 start=(--retrain) ;;
    *) network=shallow-mlp epochs=40 start=() ;;
esac

train=(train.py --dataset "$1" --network "$network" --epochs "${EPOCHS:-$epochs}" --seed "$SEED" "${start[@]}" --record --dump "$DUMP"
    ${GPU:+--gpu "$GPU"})
python "${train[@]}" --check                                  # refuses wrong settings before anything is crafted
files=$(python -m poisons.watermark --dataset "$1" --pairs "$2" --alpha "${ALPHAS[@]}")
mapfile -t poisons <<< "$files"
python "${train[@]}" --poison "${poisons[@]}"
pairs=$(basename "${poisons[0]%_alpha_*}")
# its own folders: another process may be at others
python analyze_gradients.py -- "${RESULTS:-results}/analysis/collision/$pairs${start:+_retrain}/$(basename "$(dirname "${poisons[0]}")")"
