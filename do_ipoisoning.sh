#!/usr/bin/env bash
# Indiscriminate poisoning of a logistic regression, undefended and under DP-SGD (section 5 of the paper).
#
#   ./do_ipoisoning.sh subtask 0        0 is the CUDA device; without a GPU the CPU is used
#
# 9 ratios x (undefended + 5 clip norms x 4 noises) = 189 trainings of 40 epochs an attack; about 12 s each on 2 cores.
# Attacks: label-flips, slabs, slabs-release (both kept in the repository), and minmax (crafted on demand, 2 minutes for all ratios).
# Results: results/ipoisoning/<attack>/<poison set>/<model>/attack_results.csv. What is finished is not run again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if [[ $# -ne 2 || $1 != subtask ]]; then
    echo "usage: ./do_ipoisoning.sh subtask <gpu>" >&2
    exit 2
fi

# Settings; each can be given in the environment, e.g. NORMCLP="1 4" EPOCHS=5 ./do_ipoisoning.sh subtask 0
read -ra ATTACKS <<< "${ATTACKS:-label-flips slabs slabs-release}"
read -ra RATIOS <<< "${RATIOS:-0.01 0.02 0.03 0.04 0.05 0.1 0.2 0.3 0.4}"
read -ra NORMCLP <<< "${NORMCLP:-0.1 1 2 4 8}"                # clip norms
read -ra NOISEML <<< "${NOISEML:-0 0.1 0.001 0.00001}"        # standard deviations of the noise
EPOCHS=${EPOCHS:-40}
SEED=${SEED:-215}                                             # of the training, and of the rows that label flips draw
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
"$PYTHON" train.py --dataset "$1" --network lr --gpu "$2" --poison "${poisons[@]}" --epochs "$EPOCHS" --seed "$SEED" \
    --undefended --clip-norm "${NORMCLP[@]}" --noise-std "${NOISEML[@]}"
