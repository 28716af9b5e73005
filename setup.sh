#!/usr/bin/env bash
# Makes .venv, a virtual environment with what requirements-locked.txt lists. Needs Python 3.9, 3.10 or 3.11 (PYTHON=... to choose one)
# and no root. reproduce.sh and run_tests.sh call it; a second call finds everything done.
#
# An environment that lacks something, or was made for other requirements, is made anew; the earlier one stays until that is done, and where
# it fails. A .venv that this script did not make is left alone.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. ./common.bash

stamp=.venv/requirements.sha256                               # what it was made for; "unfinished" while it is made
wanted=$(sha256sum requirements-locked.txt)
complete() {
    [[ -x .venv/bin/python && -f $stamp && $(< $stamp) == "$wanted" ]] && .venv/bin/python installed.py requirements-locked.txt 2> /dev/null
}
supported() {
    "$1" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' 2> /dev/null
}

! complete || exit 0
exec 9> .venv.lock || refuse "this folder may not be written, and has no .venv with the requirements; set it up as who may"
if command -v flock > /dev/null && ! flock -n 9; then
    echo "another setup.sh is at it here; waiting until it has ended" >&2
    flock 9
    ! complete || exit 0
fi

named=${PYTHON:-}
candidates=(python3.11 python3.10 python3.9 python3 python)
[[ -z $named ]] || candidates=("$named")
python=
for candidate in "${candidates[@]}"; do
    if supported "$candidate"; then
        # the interpreter itself: a .venv that is activated is about to be replaced
        python=$("$candidate" -c 'import os, sys; print(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))')
        break
    fi
done
[[ -n $python ]] || refuse "no Python 3.9, 3.10 or 3.11 found as ${named:-python3.11, python3.10, python3.9, python3 or python} (TensorFlow 2.15 runs on no other); install one, or name it: PYTHON=/path/to/python3.11 $0"
"$python" -c 'import venv, ensurepip' 2> /dev/null || refuse "$python has no venv and pip to make a virtual environment with (Debian, Ubuntu: apt install python3-venv)"
[[ ! -e .venv && ! -L .venv || -f $stamp ]] || refuse "$PWD/.venv: is there, and this script did not make it; move it away, or install requirements-locked.txt into it and call what you want with PYTHON=$PWD/.venv/bin/python"

echo "setting up .venv with $("$python" --version) (the first time: some minutes, about 2 GB)"
if [[ -f $stamp && $(< $stamp) != unfinished ]]; then         # else a call that was killed: .venv.earlier stays what it is
    rm -rf .venv.earlier
    mv .venv .venv.earlier
fi
rm -rf .venv
restore() {
    rm -rf .venv
    [[ ! -e .venv.earlier ]] || mv .venv.earlier .venv
}
trap restore EXIT
mkdir .venv
echo unfinished > "$stamp"
run "$python" -m venv .venv
log=$PWD/.venv.log
pip=(.venv/bin/python -m pip --disable-pip-version-check)
run "${pip[@]}" install --progress-bar off --require-hashes --only-binary :all: --no-deps -r requirements-locked.txt > "$log" 2>&1 ||
    refuse "pip could not install the requirements: $(grep -iE '^error' "$log" | tail -n 1 | cut -c1-200) (is the network there? its output is in $log; an earlier .venv is as it was)"
"${pip[@]}" check >> "$log" 2>&1 || refuse "the requirements do not fit each other: $(tail -n 1 "$log") (its output is in $log)"
echo "$wanted" > "$stamp"
complete || refuse "the environment lacks something after its set-up; see $log, and .venv/bin/python installed.py requirements-locked.txt"
trap - EXIT
rm -rf .venv.earlier "$log"
