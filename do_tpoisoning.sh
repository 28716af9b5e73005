#!/usr/bin/env bash
# Targeted clean-label poisoning of models of shopping baskets, undefended and under DP-SGD (sections 6.3 and 6.4 of the paper).
#
#   ./do_tpoisoning.sh purchases oneshot          each of up to 100 poisons alone, 100 targets
#   ./do_tpoisoning.sh purchases multipoison      1, 2, ... 100 poisons together
#
# Writes a list of TOTTASKS tasks a model, purchases-tpoisoning-one-tasks.tsv, and a script that runs them; trains nothing:
#
#   ./purchases-tpoisoning-one-array.sh 7                 the seventh task, here
#   TOTPROCS=2 ./purchases-tpoisoning-one-array.sh        every task here, two at a time, which share the cores
#   sbatch purchases-tpoisoning-one-array.sh              every task on a Slurm cluster, as one job array; --array=7: the seventh
#
# Where clean models are missing, purchases-tpoisoning-one-models.sh trains them: the array does so by itself here, and on a cluster waits for
#
#   sbatch --dependency=afterok:$(sbatch --parsable purchases-tpoisoning-one-models.sh) purchases-tpoisoning-one-array.sh
#
# With TOTPROCS in the environment of this script, all is run at once. With SCRIPTS=1 each task has a script, too, which bash and sbatch run:
# purchases-net-0-tpoisoning-one-1-of-10.sh ... A job whose list was written anew with other tasks since refuses to run. A task skips what is
# finished, leaves a target that another task is at to that one, and can be killed and run again. Logs: logs/<name>-<job>_<task>.log.
# On 2 cores a target takes 2 to 16 s (lr), 10 s to 3 minutes (shallow-mlp).
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
words EPOCHS "50"                                             # of re-training; of several there are results for each, of the same trainings
STOP=${STOP:-1}                                               # 0: every trial to its end, instead of the first success
RATE=${RATE:-}                                                # learning rate; the paper's is twice as high under DP-SGD
VICTIM_CLASS=${VICTIM_CLASS:-}                                # of the targets; 3 without
WANTED_CLASS=${WANTED_CLASS:-}                                # that they are to be taken for; 4 without
TOTTASKS=${TOTTASKS:-10}                                      # a model; Slurm's default limit is 1000 tasks in a job array
TOTPROCS=${TOTPROCS:-}                                        # run all here at once, so many at a time
SCRIPTS=${SCRIPTS:-}                                          # 1: a script a task besides
CPUS=${CPUS:-2}                                               # cores that Slurm is asked for, a task
GPUS=${GPUS:-}                                                # 1: a GPU a task
TIME_LIMIT=${TIME_LIMIT:-}                                    # of a task, e.g. 2:00:00
MEMORY=${MEMORY:-}                                            # of a task, e.g. 4G
THROTTLE=${THROTTLE:-}                                        # so many tasks at a time at most
SBATCH_EXTRA=${SBATCH_EXTRA:-}                                # what else sbatch is told, e.g. --account=me --partition=long
use_python
whole TOTTASKS 10000
whole CPUS 10000
[[ -z $TOTPROCS ]] || whole TOTPROCS 10000
[[ "$GPUS $SCRIPTS" =~ ^1?\ 1?$ ]] || refuse "GPUS=$GPUS SCRIPTS=$SCRIPTS: give 1, or leave it out"
[[ $STOP =~ ^[01]$ ]] || refuse "STOP=$STOP: give 0, for every trial to its end, or 1"
[[ ${#NETWORKS[@]} -gt 0 ]] || refuse "NETWORKS: empty; give one or more with spaces between them, or leave it out"

data=$(basename "${1%.npz}")
set -- "$(own "$1")" "$2"
for place in "${!NETWORKS[@]}"; do
    NETWORKS[place]=$(own "${NETWORKS[place]}")
done
gpu=${GPUS:+0}                                                # of those that Slurm gives
gpu=${gpu:-${GPU:-}}
attack=(--dataset "$1" ${gpu:+--gpu "$gpu"} --mode "$2" --targets "$TARGETS" --poisons "$POISONS" --epochs "${EPOCHS[@]}" --tasks "$TOTTASKS")
[[ $STOP == 0 ]] || attack+=(--stop-at-first)
[[ -z $VICTIM_CLASS ]] || attack+=(--victim-class "$VICTIM_CLASS")
[[ -z $WANTED_CLASS ]] || attack+=(--wanted-class "$WANTED_CLASS")
[[ -z $RATE ]] || attack+=(--learning-rate "$RATE")
name=${2%shot}
name=$data-tpoisoning-${name%poison}
all=(--name "$name" --of "a $2 sweep" --by do_tpoisoning.sh)
write_tasks "${all[@]}" --check                               # refuses wrong settings before anything is written

models=""                                                     # commands that train those that are missing
for network in "${NETWORKS[@]}"; do
    count=(attack_targets.py --network "$network" "${attack[@]}" --list)
    undefended=(train.py --dataset "$1" --network "$network" ${gpu:+--gpu "$gpu"})
    others=("${undefended[@]}" --shaping "${SHAPINGS[@]}" ${RATE:+--learning-rate "$RATE"})
    python attack_targets.py --network "$network" "${attack[@]}" --shaping "${SHAPINGS[@]}" --check
    missing=$(python "${undefended[@]}" --missing)
    missing+=$(python "${others[@]}" --missing)
    if [[ -n $missing ]]; then
        models+="$(python_line "${undefended[@]}")"$'\n'"$(python_line "${others[@]}")"$'\n'"$(python_line "${count[@]}") > /dev/null"$'\n'
    else
        python "${count[@]}" > /dev/null                      # refuses more targets than the model has right
    fi
done

net=0
for network in "${NETWORKS[@]}"; do
    for shaping in "${SHAPINGS[@]}"; do
        for ((task = 1; task <= TOTTASKS; task++)); do
            printf '%s\t%s\t%s\n' "$data-net-$net-${name#"$data-"}" "$2 attacks on the $network, $shaping: part $task of $TOTTASKS of the targets" \
                "exec $(python_line attack_targets.py --network "$network" --shaping "$shaping" "${attack[@]}" --task "$task")"
        done
        net=$((net + 1))
    done
done | write_tasks "${all[@]}" --first "$models" ${TOTPROCS:+--run "$TOTPROCS"}
