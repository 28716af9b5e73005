#!/usr/bin/env bash
# Several targeted poisons at once, each within one distance of its base row: crafted one by one (clean-labels) beside
# crafted together (gradient-matching, bullseye), against the attacked model and against the undefended one.
#
#   ./attack_together.sh purchases          the paper's baskets, or their stand-in; behind it a number, or GPU=0: on that CUDA device
#
# Results: results/tpoisoning/<attack>/multipoison/<data>/<model>/<budget>_radius_<distance>/attack_w_<target>.csv;
# python3 report.py makes results/tables/together.csv of them. What is finished is not run again.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. ./common.bash

if [[ $# -lt 1 || $# -gt 2 ]]; then
    echo "usage: ./attack_together.sh <data set> [<gpu>]      e.g. purchases; -h for its settings" >&2
    exit 2
fi

# Settings; each can be given in the environment
RADIUS=${RADIUS:-2}                                           # here one poison alone hits about as many as published
words ATTACKS "${ATTACKS-clean-labels gradient-matching bullseye}"
words CLIPS "${CLIPS-0.1 4}"                                  # at the paper's rate; one by one at the undefended one, too
TARGETS=${TARGETS:-40}
POISONS=${POISONS:-10}                                        # the first 1, 2, ... of them together
EPOCHS=${EPOCHS:-50}
VICTIM_CLASS=${VICTIM_CLASS:-}                                # of the targets; 3 without
WANTED_CLASS=${WANTED_CLASS:-}                                # that they are to be taken for; 4 without
use_python
GPU=${2:-${GPU:-}}

attack() {
    python attack_targets.py --dataset "$data" --network lr --mode multipoison \
        --targets "$TARGETS" --poisons "$POISONS" --beta 0 --feature-distance 1e6 --radius "$RADIUS" \
        --epochs "$EPOCHS" ${GPU:+--gpu "$GPU"} ${check:+"$check"} \
        ${VICTIM_CLASS:+--victim-class "$VICTIM_CLASS"} ${WANTED_CLASS:+--wanted-class "$WANTED_CLASS"} "$@"
}
data=$(own "$1")
for check in --check ""; do                                   # refuses wrong settings before anything is written
    for name in "${ATTACKS[@]}"; do
        attack --attack "$name" --learning-rate 0.04 --shaping undefended
        [[ ${#CLIPS[@]} -gt 0 ]] || continue
        attack --attack "$name" --learning-rate 0.08 --shaping "${CLIPS[@]}"
        attack --attack "$name" --learning-rate 0.08 --shaping "${CLIPS[@]}" --transfer
        [[ $name != clean-labels ]] || attack --attack "$name" --learning-rate 0.04 --shaping "${CLIPS[@]}"
    done
done
