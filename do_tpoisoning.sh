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
cd "$(dirname "${BASH_SOURCE[0]}")"

if [[ $# -ne 2 || $1 != purchases || ! $2 =~ ^(oneshot|multipoison)$ ]]; then
    echo "usage: ./do_tpoisoning.sh purchases {oneshot|multipoison}" >&2
    exit 2
fi

# Settings; each can be given in the environment, e.g. NETWORKS=lr SHAPINGS="undefended 0.1" TARGETS=10 TOTPROCS=1 ./do_tpoisoning.sh purchases oneshot
read -ra NETWORKS <<< "${NETWORKS:-lr shallow-mlp}"
read -ra SHAPINGS <<< "${SHAPINGS:-undefended 0.1 1 4 8 4:0.00025 4:0.0025 4:0.025 4:0.1}"      # as train.py --shaping takes them
TARGETS=${TARGETS:-100}
POISONS=${POISONS:-100}                                       # base rows to make poisons of, for each target
EPOCHS=${EPOCHS:-50}                                          # of re-training
STOP=${STOP:-1}                                               # 0: every trial to its end, instead of the first success
RATE=${RATE:-}                                                # learning rate; the paper's is twice as high under DP-SGD
TOTTASKS=${TOTTASKS:-10}                                      # a model; Slurm's default limit is 1000 tasks in a job array
TOTPROCS=${TOTPROCS:-}
CPUS=${CPUS:-2}                                               # cores that Slurm is asked for, a task
export PYTHON=${PYTHON:-$([[ -x .venv/bin/python ]] && echo "$PWD/.venv/bin/python" || echo python3)}
if [[ ! "$TOTTASKS ${TOTPROCS:-1} $CPUS" =~ ^([1-9][0-9]* ?){3}$ || ! $STOP =~ ^[01]$ || ${#NETWORKS[@]} -eq 0 ]]; then
    echo "error: TOTTASKS=$TOTTASKS TOTPROCS=$TOTPROCS CPUS=$CPUS STOP=$STOP NETWORKS='${NETWORKS[*]}': give whole numbers of 1 or more, 0 or 1 for STOP, and a network" >&2
    exit 2
fi

attack=(--dataset "$1" --mode "$2" --targets "$TARGETS" --poisons "$POISONS" --epochs "$EPOCHS" --tasks "$TOTTASKS")
[[ $STOP == 0 ]] || attack+=(--stop-at-first)
[[ -z $RATE ]] || attack+=(--learning-rate "$RATE")
for network in "${NETWORKS[@]}"; do                           # refuses wrong settings before anything is written
    "$PYTHON" attack_targets.py --network "$network" "${attack[@]}" --shaping "${SHAPINGS[@]}" --list > /dev/null
    "$PYTHON" train.py --dataset "$1" --network "$network" --shaping "${SHAPINGS[@]}" ${RATE:+--learning-rate "$RATE"}
done

name=${2%shot}
name=${name%poison}
environment=$(for variable in PYTHON RESULTS MODELS SHAPING_FILE; do [[ ! -v $variable ]] || printf 'export %s=%q\n' $variable "${!variable}"; done)
header="#SBATCH --cpus-per-task=$CPUS
#SBATCH --requeue
#SBATCH --open-mode=append"
mkdir -p logs
rm -f "$1"-net-*-tpoisoning-"$name"-*.sh
scripts=()
for network in "${NETWORKS[@]}"; do
    for shaping in "${SHAPINGS[@]}"; do
        net=$((${#scripts[@]} / TOTTASKS))
        for ((task = 1; task <= TOTTASKS; task++)); do
            script=$1-net-$net-tpoisoning-$name-$task-of-$TOTTASKS.sh
            cat > "$script" <<SCRIPT
#!/usr/bin/env bash
#SBATCH --job-name=${script%.sh}
#SBATCH --output="$PWD/logs/%x.log"
$header
# $2 attacks on the $network, $shaping: part $task of $TOTTASKS of the targets. Written by do_tpoisoning.sh.
set -euo pipefail
cd $(printf '%q' "$PWD")
$environment
cores=\${CORES:-\${SLURM_CPUS_PER_TASK:-}}
exec "\$PYTHON" attack_targets.py --network $network --shaping $(printf '%q' "$shaping") ${attack[*]} --task $task \${cores:+--cores "\$cores"}
SCRIPT
            chmod +x "$script"
            scripts+=("$script")
        done
    done
done
array=$1-tpoisoning-$name-array.sh
cat > "$array" <<SCRIPT
#!/usr/bin/env bash
#SBATCH --job-name=${array%.sh}
#SBATCH --output="$PWD/logs/%x-%a.log"
#SBATCH --array=1-${#scripts[@]}
$header
# Every task of a $2 sweep: as a Slurm job array with sbatch, else here, TOTPROCS at a time; a number chooses one. Written by do_tpoisoning.sh.
set -euo pipefail
cd $(printf '%q' "$PWD")
scripts=(
$(printf '    %s\n' "${scripts[@]}")
)
task=\${1:-\${SLURM_ARRAY_TASK_ID:-}}
if [[ -n \$task ]]; then
    [[ \$task =~ ^[1-9][0-9]*$ && \$task -le \${#scripts[@]} ]] || { echo "error: task \$task: choose one of 1 to \${#scripts[@]}" >&2; exit 2; }
    exec bash "./\${scripts[task - 1]}"
fi
[[ \${TOTPROCS:=1} =~ ^[1-9][0-9]*$ ]] || { echo "error: TOTPROCS=\$TOTPROCS: give a whole number of 1 or more" >&2; exit 2; }
export CORES=\$((\$(nproc) / TOTPROCS > 0 ? \$(nproc) / TOTPROCS : 1))
printf '%s\n' "\${scripts[@]}" | xargs -P "\$TOTPROCS" -I {} bash ./{}
SCRIPT
chmod +x "$array"

if [[ -n $TOTPROCS ]]; then
    TOTPROCS=$TOTPROCS "./$array"
else
    echo "${#scripts[@]} task scripts, ${scripts[0]} to ${scripts[-1]}; run all of them:"
    echo "    sbatch $array              on a Slurm cluster"
    echo "    TOTPROCS=1 ./$array        here, one at a time with all cores"
fi
