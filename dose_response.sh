#!/usr/bin/env bash
# Targeted one-shot poisons by their dose: success against the L2 distance that a poison may move, undefended and shaped.
#
#   ./dose_response.sh purchases           the paper's baskets, or their stand-in: 40 targets, 8 doses, 13 models
#   ./dose_response.sh purchases-cj2       the second stand-in: 8 other doses, 5 models
#   NETWORK=shallow-mlp ./dose_response.sh purchases          behind it a number, or GPU=0 before it: on that CUDA device
#
# All doses and poisons of a target train as one stack, on the model that they were crafted against.
# Results: results/tpoisoning/clean-labels/oneshot/<data>/<model>/<budget>_radius_<dose>/attack_w_<target>.csv;
# python3 report.py makes results/tables/doses.csv and half_doses.csv of them. What is finished is not run again.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. ./common.bash

if [[ $# -lt 1 || $# -gt 2 ]]; then
    echo "usage: ./dose_response.sh <data set> [<gpu>]      e.g. purchases; -h for its settings" >&2
    exit 2
fi

targets=40 radii="1 1.6 2 2.4 2.8 3.3 4 5"                    # from a quarter of the way to the target to all of it
clips="0.1 1 4 4:0.0025" shapings="undefended phuber:2 gce:0.7 centered-clip:1 phuber:2+clip:1"
undefended=0.04 doubled=0.08                                  # the paper's learning rates without DP-SGD and with it
case $1,${NETWORK:-lr} in
    purchases-cj2,lr)                                         # rows lie a third as far apart
        radii="0.35 0.55 0.7 0.8 0.95 1.1 1.4 1.7" clips="0.1 4" shapings=undefended ;;
    *,shallow-mlp)
        radii="1.6 2.4 3.3" targets=8 clips=0.1 shapings=undefended
        undefended=0.001 doubled=0.002 ;;
esac

# Settings; each can be given in the environment
NETWORK=${NETWORK:-lr}
words RADII "$radii"                                          # L2 distances that a poison may move from its base row
words CLIPS "${CLIPS-$clips}"                                 # at both rates
words SHAPINGS "${SHAPINGS-$shapings}"                        # at the undefended one
TARGETS=${TARGETS:-$targets}
POISONS=${POISONS:-10}                                        # base rows to make poisons of, for each target and dose
EPOCHS=${EPOCHS:-50}
VICTIM_CLASS=${VICTIM_CLASS:-}                                # of the targets; 3 without
WANTED_CLASS=${WANTED_CLASS:-}                                # that they are to be taken for; 4 without
use_python
GPU=${2:-${GPU:-}}

attack=(attack_targets.py --dataset "$(own "$1")" --network "$(own "$NETWORK")" --mode oneshot --targets "$TARGETS" --poisons "$POISONS"
    --beta 0 --feature-distance 1e6 --radius "${RADII[@]}" --epochs "$EPOCHS" ${GPU:+--gpu "$GPU"}
    ${VICTIM_CLASS:+--victim-class "$VICTIM_CLASS"} ${WANTED_CLASS:+--wanted-class "$WANTED_CLASS"})
for check in --check ""; do                                   # refuses wrong settings before anything is written
    python "${attack[@]}" ${check:+"$check"} --learning-rate "$undefended" --shaping "${SHAPINGS[@]}" "${CLIPS[@]}"
    [[ ${#CLIPS[@]} -eq 0 ]] || python "${attack[@]}" ${check:+"$check"} --learning-rate "$doubled" --shaping "${CLIPS[@]}"
done
