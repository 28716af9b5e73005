#!/usr/bin/env bash
# Targeted clean-label poisoning of models of shopping baskets, undefended and under DP-SGD (sections 6.3 and 6.4 of the paper).
#
#   ./do_tpoisoning.sh purchases oneshot          each of up to 100 poisons alone, 100 targets
#   ./do_tpoisoning.sh purchases multipoison      1, 2, ... 100 poisons together
#
# Trains the clean models that are missing and writes TOTTASKS task scripts a model, and one script for all of them:
#
#   ./purchases-net-0-tpoisoning-one-1-of-10.sh           a task, here
#   sbatch purchases-net-0-tpoisoning-one-1-of-10.sh      a task, on a Slurm cluster
#   sbatch purchases-tpoisoning-one-array.sh              every task, as one job array
#   TOTPROCS=2 ./purchases-tpoisoning-one-array.sh        every task here, two at a time, which share the cores
#
# With TOTPROCS in the environment of this script, they are run at once. Written again, the scripts change what queued tasks will do. A task skips what is finished, leaves a target that another task is at to
# that one, and can be killed and run again. On 2 cores a target takes 2 to 16 s (lr), 10 s to 3 minutes (shallow-mlp).
# Results: results/tpoisoning/clean-labels/<oneshot|multipoison>/<data>/<model>/<budget>/attack_w_<target>.csv; python3 report.py counts them.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. ./common.bash

if [[ $# -ne 2 || ! $2 =~ ^(oneshot|multipoison)$ ]]; then
    echo "usage: ./do_tpoisoning.sh <data set> {oneshot|multipoison}      e.g. purchases oneshot; -h for its settings" >&2
    exit 2
fi
networks=lr
[[ $1 != purchases* ]] || networks="lr shallow-mlp"

# Settings; each can be given in the environment, e.g. NETWORKS=lr SHAPINGS="undefended 0.1" TARGETS=10 TOTPROCS=1 ./do_tpoisoning.sh purchases oneshot
words NETWORKS "$networks"
words SHAPINGS "undefended 0.1 1 4 8 4:0.00025 4:0.0025 4:0.025 4:0.1" # as train.py --shaping takes them
TARGETS=${TARGETS:-100}
POISONS=${POISONS:-100}                                       # base rows to make poisons of, for each target
EPOCHS=${EPOCHS:-50}                                          # of re-training
STOP=${STOP:-1}                                               # 0: every trial to its end, instead of the first success
RATE=${RATE:-}                                                # learning rate; the paper's is twice as high under DP-SGD
VICTIM_CLASS=${VICTIM_CLASS:-}                                # of the targets; 3 without
WANTED_CLASS=${WANTED_CLASS:-}                                # that they are to be taken for; 4 without
TOTTASKS=${TOTTASKS:-10}                                      # a model; Slurm's default limit is 1000 tasks in a job array
TOTPROCS=${TOTPROCS:-}
CPUS=${CPUS:-2}                                               # cores that Slurm is asked for, a task
use_python
whole TOTTASKS 10000
whole CPUS 10000
[[ -z $TOTPROCS ]] || whole TOTPROCS 10000
[[ $STOP =~ ^[01]$ ]] || refuse "STOP=$STOP: give 0, for every trial to its end, or 1"
[[ ${#NETWORKS[@]} -gt 0 ]] || refuse "NETWORKS: empty; give one or more with spaces between them, or leave it out"

data=$(basename "${1%.npz}")
set -- "$(own "$1")" "$2"
for place in "${!NETWORKS[@]}"; do
    NETWORKS[place]=$(own "${NETWORKS[place]}")
done
attack=(--dataset "$1" --mode "$2" --targets "$TARGETS" --poisons "$POISONS" --epochs "$EPOCHS" --tasks "$TOTTASKS")
[[ $STOP == 0 ]] || attack+=(--stop-at-first)
[[ -z $VICTIM_CLASS ]] || attack+=(--victim-class "$VICTIM_CLASS")
[[ -z $WANTED_CLASS ]] || attack+=(--wanted-class "$WANTED_CLASS")
[[ -z $RATE ]] || attack+=(--learning-rate "$RATE")
for network in "${NETWORKS[@]}"; do                           # refuses wrong settings before anything is written
    python attack_targets.py --network "$network" "${attack[@]}" --shaping "${SHAPINGS[@]}" --list > /dev/null
    python train.py --dataset "$1" --network "$network" --shaping "${SHAPINGS[@]}" ${RATE:+--learning-rate "$RATE"}
done

name=${2%shot}
name=${name%poison}
net=0
for network in "${NETWORKS[@]}"; do
    for shaping in "${SHAPINGS[@]}"; do
        for ((task = 1; task <= TOTTASKS; task++)); do
            printf '%s\t%s\t%s\n' "$data-net-$net-tpoisoning-$name" "$2 attacks on the $network, $shaping: part $task of $TOTTASKS of the targets" \
                "exec \"\$PYTHON\" attack_targets.py$(printf ' %q' --network "$network" --shaping "$shaping" "${attack[@]}") --task $task \${cores:+--cores \"\$cores\"}"
        done
        net=$((net + 1))
    done
done | python write_tasks.py --name "$data-tpoisoning-$name" --of "a $2 sweep" --by do_tpoisoning.sh --cpus "$CPUS" ${TOTPROCS:+--run "$TOTPROCS"}
