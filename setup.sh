#!/usr/bin/env bash
# Makes .venv, a virtual environment with the pinned requirements. Needs Python 3.9, 3.10 or 3.11 (PYTHON=... to choose one) and no root.
# reproduce.sh and run_tests.sh call it; a second call finds everything done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
    echo "error: $1" >&2
    exit 2
}

supported() {
    "$1" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null
}

installed=.venv/requirements.sha256
wanted=$(sha256sum requirements.txt)
if [[ -x .venv/bin/python && -f $installed && $(cat $installed) == "$wanted" ]] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

python=
for candidate in ${PYTHON:-python3.11 python3.10 python3.9 python3 python}; do
    if supported "$candidate"; then
        python=$candidate
        break
    fi
done
[[ -n $python ]] || fail "no Python 3.9, 3.10 or 3.11 found as ${PYTHON:-python3.11, python3.10, python3.9, python3 or python} (TensorFlow 2.15 runs on no other); install one, or name it: PYTHON=/path/to/python3.11 $0"
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "$python has no venv and pip to make a virtual environment with (Debian, Ubuntu: apt install python3-venv)"

echo "setting up .venv with $("$python" --version) (the first time: some minutes, about 2 GB)"
rm -rf .venv
"$python" -m venv .venv
if ! .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -r requirements.txt > .venv/install.log 2>&1; then
    fail "pip could not install the requirements: $(grep -iE '^error' .venv/install.log | tail -n 1 | cut -c1-200) (is the network there? its output is in .venv/install.log)"
fi
echo "$wanted" > "$installed"
