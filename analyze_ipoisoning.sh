#!/usr/bin/env bash
# The gradients of clean and poison rows under indiscriminate attacks, undefended and with clip norm 4 (sections 4 and 5 of the paper).
#
#   ./analyze_ipoisoning.sh subtask
#
# One ratio x (undefended, clip 4) = 2 trainings of 40 epochs an attack; about 8 s each on 2 cores.
# Results: results/analysis/ipoisoning/<attack>/<poison set>/<model>/{analysis_results,mextracts_epoch,aextracts_epoch,sextracts_epoch}.csv
# and gradients.png. What is finished is not run again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if [[ $# -ne 1 || $1 != subtask ]]; then
    echo "usage: ./analyze_ipoisoning.sh subtask" >&2
    exit 2
fi

# Settings; each can be given in the environment
read -ra ATTACKS <<< "${ATTACKS:-label-flips slabs}"
read -ra RATIOS <<< "${RATIOS:-0.4}"
read -ra NORMCLP <<< "${NORMCLP:-4}"
EPOCHS=${EPOCHS:-40}
SEED=${SEED:-215}
DUMP=${DUMP:-npz}                                             # or csv: the paper's layout of the recorded gradients
export PYTHON=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}
if [[ ${#ATTACKS[@]} -eq 0 || ${#RATIOS[@]} -eq 0 ]]; then
    echo "error: ATTACKS='${ATTACKS[*]}' RATIOS='${RATIOS[*]}': give at least one of each, or leave the variable out" >&2
    exit 2
fi

poisons=()
for attack in "${ATTACKS[@]}"; do
    files=$(./craft_ipoisoning.sh "$attack" "$SEED" "${RATIOS[@]}")
    mapfile -t -O "${#poisons[@]}" poisons <<< "$files"
done
"$PYTHON" train.py --dataset "$1" --network lr --poison "${poisons[@]}" --epochs "$EPOCHS" --seed "$SEED" \
    --undefended --clip-norm "${NORMCLP[@]}" --record --dump "$DUMP"
"$PYTHON" analyze_gradients.py "${RESULTS:-results}/analysis/ipoisoning"
