#!/usr/bin/env bash
# The poison files of an indiscriminate attack, crafted where they are missing; prints their paths.
#
#   ./craft_ipoisoning.sh {label-flips|slabs|slabs-release|minmax} <seed of the label flips> <ratio> ...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if [[ $# -lt 3 ]]; then
    echo "usage: ./craft_ipoisoning.sh {label-flips|slabs|slabs-release|minmax} <seed> <ratio> ..." >&2
    exit 2
fi
PYTHON=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}

case $1 in
    label-flips) "$PYTHON" -m poisons.label_flip --seed "$2" --ratio "${@:3}" ;;
    slabs) "$PYTHON" -m poisons.steinhardt --attack slab --eps "${@:3}" ;;
    slabs-release) "$PYTHON" -m poisons.steinhardt --attack slab --select training-loss --eps "${@:3}" ;;
    minmax) "$PYTHON" -m poisons.steinhardt --attack minmax --eps "${@:3}" ;;
    *) echo "error: ATTACKS: no attack is called '$1'; choose from: label-flips slabs slabs-release minmax" >&2; exit 2 ;;
esac
