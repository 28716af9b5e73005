#!/usr/bin/env bash
# Sets up .venv and runs every test, two at a time; arguments go to pytest, e.g. ./run_tests.sh -m quick, ./run_tests.sh -m "not slow",
# ./run_tests.sh tests/test_stack.py
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. ./common.bash
run ./setup.sh
exec .venv/bin/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder "$@"
