#!/usr/bin/env bash
# Every kind of gradient shaping, on clean rows and against poisons, over seeds: a logistic regression on the binary subtask by default.
#
#   ./compare_shapings.sh subtask 0        0 is the CUDA device; without a GPU the CPU is used
#
# Stages, each of which needs those before it:
#   oblivious    SHAPINGS against poisons that were made without regard to them, AGAINST
#   crafting     poisons against each of the shapings that choose_shapings.py chooses by what they do on clean rows, ADAPTIVE
#   transfer     each of those poison files against each chosen shaping, by two seeds of its own: results/matrix/transfer.csv; and the price
#                of a bad model under each: results/matrix/price.csv
#   final        each chosen shaping against the files that are the strongest against it, one of each attack and ratio
#   targeted     of shopping baskets alone: clean-label poisons that move by RADIUS at most, on models that are trained where they are missing
# `adaptive` means crafting, transfer and final. All shapings of a poison set and seed train as one stack, for 40 epochs on the subtask.
#
# With WRITE=1 and one stage, its tasks are written instead, subtask-matrix-oblivious-tasks.tsv, and a script that runs them; poison files, and
# what is missing of crafting or transfer where a later stage needs it, are made before, here:
#
#   WRITE=1 STAGES=oblivious ./compare_shapings.sh subtask 0
#   ./subtask-matrix-oblivious-array.sh 7                   the seventh task, here: a seed and a poison set (crafting: a shaping; final: a seed)
#   TOTPROCS=2 ./subtask-matrix-oblivious-array.sh          every task here, two at a time
#   sbatch subtask-matrix-oblivious-array.sh                every task on a Slurm cluster, as one job array; --array=7 for the seventh alone
#
# Where the clean baseline is missing, subtask-matrix-oblivious-models.sh trains it: the array does so by itself here, and on a cluster waits for
#
#   sbatch --dependency=afterok:$(sbatch --parsable subtask-matrix-oblivious-models.sh) subtask-matrix-oblivious-array.sh
#
# With TOTPROCS in the environment of this script, too, all is run at once. With SCRIPTS=1 each task has a script, too, which bash and sbatch run:
# subtask-matrix-oblivious-1-of-40.sh ... A lost task is made up for by running the array again, or this script without WRITE: what is finished is
# not run again. Logs: logs/<name>-<job>_<task>.log.
# Results: results/ipoisoning/<attack>/<poison set>/<model>/attack_results.csv; report.py makes results/matrix.html of them.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. ./common.bash

if [[ $# -ne 2 ]]; then
    echo "usage: ./compare_shapings.sh <data set> <gpu>        e.g. subtask 0" >&2
    exit 2
fi
seeds="1 2 3 4 5 6 7 8 9 10" epochs="" retrain="" few=""
case $1 in
    subtask | fashion_mnist_3_4.1.0)
        against="none label-flips:0.1 label-flips:0.4 adversarial-flips:0.1 slabs:0.1 slabs:0.4 slabs-release:0.1 slabs-release:0.4
            minmax:0.3 collision:1.0"
        network=lr stages="oblivious adaptive" ;;
    fashion_mnist)                                            # the clean baseline re-trained; a training takes half a minute
        against="none label-flips:0.4 insertion:4" network=shallow-mlp stages=oblivious seeds="1 2 3 4 5" epochs=10 retrain=1 few=chosen
        [[ ${NETWORK:-} != badnet ]] || against="none insertion:4" seeds="1 2 3" epochs=5 few="undefended 0.1 phuber:2 gce:0.7" ;;
    purchases | purchases-cj | purchases-cj2) against="none label-flips:0.4" network=lr stages=targeted few=chosen ;;
    *) against="none label-flips:0.4" network=lr stages=oblivious ;;
esac
# of each kind some values, as train.py --shaping takes them; which of a kind is chosen for the adaptive stages, choose_shapings.py says
shapings="undefended 4 1 0.1 1:0.01 1:0.1 1:1 clip-layers:4 clip-layers:1 clip-layers:0.1
    auto-s:1 auto-s:0.1 auto-s:0.01 auto-v psac:1:1 psac:1:0.1 psac:1:0.01
    quantile-clip:0.9:0.2:1 quantile-clip:0.7:0.2:1 quantile-clip:0.5:0.2:1 drop-norm:0.02 drop-norm:0.1 drop-norm:0.3
    trim-loss:0.02 trim-loss:0.1 trim-loss:0.3 phuber:10 phuber:4 phuber:2 gce:0.3 gce:0.5 gce:0.7 linear
    geometric-median:0.1:10 geometric-median:0.1:30 geometric-median:0.1:0 multi-krum:0.1:30 multi-krum:0.3:30 multi-krum:0.5:30
    median-of-means:5 median-of-means:10 median-of-means:30 trimmed-mean:0.1:30 trimmed-mean:0.3:30 trimmed-mean:0.45:30
    cosine:-0.5 cosine:-0.2 cosine:0 running-cosine:-0.5:0.9 running-cosine:-0.2:0.9 running-cosine:0:0.9
    sever:0.02 sever:0.1 sever:0.3 centered-clip:10 centered-clip:1 centered-clip:0.1
    abl:0.5:10:0.01 abl:0.5:10:0.05 abl:0.5:10:0.1 epic:0.1:10:10 epic:0.2:10:10 epic:0.3:10:10
    phuber:10+clip:1 phuber:4+clip:1 phuber:2+clip:1 clip:1@5,phuber:10 clip:1@5,phuber:4 clip:1@5,phuber:2"
[[ $network != lr || $stages == oblivious ]] || shapings+=" trusted:200 trusted:100 trusted:20"      # with held-out rows
adaptive="gradient-canceling:0.03 gradient-canceling:0.1 model-targeted:0.03 model-targeted:0.1 slabs-own:0.1 slabs-own:0.4"

# Settings; each can be given in the environment, e.g. STAGES=oblivious SHAPINGS="4 phuber:2" SEEDS="1 2" ./compare_shapings.sh subtask 0,
# or NETWORK=badnet ./compare_shapings.sh fashion_mnist 0: three seeds of few shapings
words STAGES "$stages"
words AGAINST "$against"                                      # attack:ratio (alpha, patch), and none: the clean rows alone
words SHAPINGS "${few:-$shapings}"                            # chosen: what choose_shapings.py says
words ADAPTIVE "$adaptive"                                    # attack:ratio
words SEEDS "$seeds"
NETWORK=${NETWORK:-$network}
EPOCHS=${EPOCHS-$epochs}                                      # the paper's, without
RETRAIN=${RETRAIN-$retrain}                                   # 1: from the clean baseline instead of initial weights
WRITE=${WRITE:-}                                              # 1: a list of tasks
TARGETS=${TARGETS:-20} RADIUS=${RADIUS:-2.1}                  # a third of the undefended targets falls
TOTPROCS=${TOTPROCS:-}                                        # run all here at once, so many at a time
SCRIPTS=${SCRIPTS:-}                                          # 1: a script a task besides
CPUS=${CPUS:-2}                                               # cores that Slurm is asked for, a task
GPUS=${GPUS:-}                                                # 1: a GPU a task
TIME_LIMIT=${TIME_LIMIT:-}                                    # of a task, e.g. 2:00:00
MEMORY=${MEMORY:-}                                            # of a task, e.g. 4G
THROTTLE=${THROTTLE:-}                                        # so many tasks at a time at most
SBATCH_EXTRA=${SBATCH_EXTRA:-}                                # what else sbatch is told, e.g. --account=me --partition=long
use_python

for list in "STAGES=${STAGES[*]}" "AGAINST=${AGAINST[*]}" "SHAPINGS=${SHAPINGS[*]}" "ADAPTIVE=${ADAPTIVE[*]}" "SEEDS=${SEEDS[*]}"; do
    [[ $list != *= ]] || refuse "${list%=}: empty; give one or more with spaces between them, or leave it out"
done
stages=()
for stage in "${STAGES[@]}"; do
    case $stage in
        oblivious | crafting | transfer | final | targeted) stages+=("$stage") ;;
        adaptive) stages+=(crafting transfer final) ;;
        *) refuse "STAGES=$stage: unknown; give some of oblivious, crafting, transfer, final, targeted, and adaptive for the three in the middle" ;;
    esac
done
[[ "$WRITE $RETRAIN $GPUS $SCRIPTS" =~ ^1?\ 1?\ 1?\ 1?$ ]] ||
    refuse "WRITE=$WRITE RETRAIN=$RETRAIN GPUS=$GPUS SCRIPTS=$SCRIPTS: give 1, or leave it out"
whole CPUS 10000
[[ -z $TOTPROCS ]] || whole TOTPROCS 10000
[[ -z $EPOCHS ]] || whole EPOCHS 1000000
[[ -z $WRITE || ${#stages[@]} -eq 1 ]] ||
    refuse "WRITE=1 STAGES='${STAGES[*]}': one stage is written at a time; give STAGES=${stages[0]} first"
[[ -n $WRITE || -z $TOTPROCS ]] ||
    refuse "TOTPROCS=$TOTPROCS: is for tasks that are written; give WRITE=1 and one of the STAGES besides, or leave it out"

model=(--dataset "$1" --network "$NETWORK")
gpu=$2
[[ -z $GPUS ]] || gpu=0                                       # of those that Slurm gives
training=(train.py "${model[@]}" --gpu "$gpu" ${EPOCHS:+--epochs "$EPOCHS"} ${RETRAIN:+--retrain})
crafting=(--dataset "$1" --sets "${ADAPTIVE[@]}")
transfer=(transfer.py "${model[@]}")
# all at the undefended learning rate; poisons of any feature distance
targeted=(attack_targets.py "${model[@]}" --gpu "$gpu" --mode oneshot --learning-rate 0.04 --targets "$TARGETS" --poisons 10 --beta 0
    --radius "$RADIUS" --feature-distance 1e6)
matrix=$1-matrix models=""
all=(--name "$matrix-${stages[0]}" --of "the stage ${stages[0]}" --by compare_shapings.sh)
[[ -z $WRITE ]] || write_tasks "${all[@]}" --check            # refuses wrong settings before anything is made
tasks=() files=() chosen=() crafted=() strongest=()

task() {                                                      # what it does, and its command but for Python: run here, or kept to be written
    if [[ -n $WRITE ]]; then
        tasks+=("$matrix-$stage"$'\t'"$1"$'\t'"exec $(python_line "${@:2}")")
    else
        python "${@:2}"
    fi
}
lines() {                                                     # the lines that a command prints, into the array that is named first
    local found
    found=$(python "${@:2}")
    mapfile -t "$1" <<< "$found"
}
# What stages take from those before, asked for once: quick where it is there
choose() { [[ ${#chosen[@]} -gt 0 ]] || lines chosen choose_shapings.py "${model[@]}" ${EPOCHS:+--epochs "$EPOCHS"}; }
craft() { choose; [[ ${#crafted[@]} -gt 0 ]] || lines crafted -m poisons "${crafting[@]}" --against "${chosen[@]}"; }

# on the clean rows of this data set, or on the subtask's, which has epochs of its own
[[ ${SHAPINGS[*]} != chosen ]] || lines SHAPINGS choose_shapings.py "${model[@]}"
for stage in "${stages[@]}"; do
    case $stage in
        oblivious)
            python "${training[@]}" --shaping "${SHAPINGS[@]}" --check
            each=${#AGAINST[@]}                               # poison files a call; a task has one
            [[ -z $WRITE ]] || each=1
            for seed in "${SEEDS[@]}"; do
                lines files -m poisons --dataset "$1" --sets "${AGAINST[@]}" --seed "$seed"
                for ((first = 0; first < ${#files[@]}; first += each)); do
                    some=("${files[@]:first:each}")
                    task "seed $seed against ${some[*]##*/}" "${training[@]}" --poison "${some[@]}" --seed "$seed" --shaping "${SHAPINGS[@]}"
                done
            done
            [[ -n $WRITE ]] || continue
            baseline=(train.py "${model[@]}" --gpu "$gpu")    # for which every task would wait
            missing=$(python "${baseline[@]}" --missing)
            [[ -z $missing ]] || models=$(python_line "${baseline[@]}") ;;
        crafting)
            choose
            if [[ -z $WRITE ]]; then                          # side by side: a single one leaves half of two cores idle
                printf '%s\0' "${chosen[@]}" |
                    run xargs -0 -P "$(nproc)" -I {} "${tether[@]}" "$PYTHON" -m poisons "${crafting[@]}" --against {} > /dev/null || exit 1
                continue
            fi
            for shaping in "${chosen[@]}"; do
                task "poisons against $shaping" -m poisons "${crafting[@]}" --against "$shaping"
            done ;;
        transfer)
            craft
            [[ -n $WRITE ]] || python price.py --dataset "$1" --shaping "${chosen[@]}"
            task "every poison file against every chosen shaping" "${transfer[@]}" --shaping "${chosen[@]}" --poison "${crafted[@]}" ;;
        final)
            craft
            lines strongest "${transfer[@]}" --shaping "${chosen[@]}" --poison "${crafted[@]}"
            for seed in "${SEEDS[@]}"; do
                task "seed $seed against the strongest files" "${training[@]}" --strongest --poison "${strongest[@]}" --seed "$seed" --shaping "${chosen[@]}"
            done ;;
        targeted)
            python "${targeted[@]}" ${EPOCHS:+--epochs "$EPOCHS"} --shaping "${SHAPINGS[@]}" --check
            for shaping in "${SHAPINGS[@]}"; do
                task "clean-label poisons against $shaping" "${targeted[@]}" ${EPOCHS:+--epochs "$EPOCHS"} --shaping "$shaping"
            done ;;
    esac
done
if [[ -n $WRITE ]]; then
    printf '%s\n' "${tasks[@]}" | write_tasks "${all[@]}" --first "$models" ${TOTPROCS:+--run "$TOTPROCS"}
    declare -A next=([oblivious]=crafting [crafting]=transfer [transfer]=final)
    [[ ! ${next[$stage]:-} ]] || echo "then, with the same settings: WRITE=1 STAGES=${next[$stage]} ./compare_shapings.sh $1 $2"
fi
