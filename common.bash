# shellcheck shell=bash
# What the scripts do alike; each of them sources it once it is in the repository's folder. No command itself.

refuse() {
    echo "error: $1" >&2
    exit 2
}

# -h: what a script says of itself in its first lines, and its settings with their defaults
if [[ ${1:-} =~ ^(-h|--help)$ ]]; then
    script=${BASH_SOURCE[1]##*/}
    sed -n '2,/^[^#]/ { s/^# \{0,1\}//p }' "$script"
    sed -n '/^# Settings/,/^use_python/p' "$script" | sed -nE '
        s/^# (Settings[^;,]*).*/\n\1, given in the environment, with their defaults:\n/p
        s/^words ([A-Z_]+) "(\$\{[A-Z_]+:?-)?([^"}]*)\}?"/    \1="\3"/
        s/^([A-Z_]+)=\$\{\1:?-([^}]*)\}/    \1=\2/
        s/="?(\$\{few:-)?\$[a-z]+"?/=(by data set)/
        s/ +# /    # /
        /^    /p'
    echo "    GPU= RESULTS= MODELS= PYTHON= SHAPING_FILE= PROTOCOL="
    exit 0
fi

# Python as the suite needs it, whatever the caller's environment: texts in UTF-8, modules found beside the command
export PYTHONUTF8=1
unset CDPATH PYTHONSAFEPATH
case ${RESULTS:-}${MODELS:+ $MODELS} in
    *$'\n'*) refuse "RESULTS or MODELS: has a line break in it; give the name of a folder" ;;
esac

# What a script starts ends with it, also where a signal reaches the script alone (setpriv: every Linux; elsewhere that
# goes on to its end)
tether=()
! command -v setpriv > /dev/null || tether=(setpriv --pdeathsig TERM --)

run() {                                                       # a command; in a $(...) or a pipe it must be the last
    [[ $BASHPID == "$$" ]] || exec "${tether[@]}" "$@"        # the subshell itself would not end with the script
    "${tether[@]}" "$@"
}

python() {
    run "$PYTHON" "$@"
}

python_line() {                                               # a command but for Python, as a line of a script that has PYTHON
    echo "\"\$PYTHON\"$(printf ' %q' "$@")"
}

use_python() {                                                # PYTHON, or that of .venv by its full name, or python3
    [[ -n ${PYTHON:-} ]] || PYTHON=$([[ -x .venv/bin/python ]] && echo "$PWD/.venv/bin/python" || echo python3)
    export PYTHON
}

own() {                                                       # a file of the caller's by its full name; other names stay
    if [[ $1 =~ \.(npz|keras|toml)$ && $1 != /* && -f $OLDPWD/$1 ]]; then
        echo "$OLDPWD/$1"
    else
        echo "$1"
    fi
}

write_tasks() {                                               # of the lines that come in, by the settings for Slurm
    python write_tasks.py --cpus "$CPUS" ${GPUS:+--gpus "$GPUS"} ${TIME_LIMIT:+--time-limit "$TIME_LIMIT"} ${MEMORY:+--memory "$MEMORY"} \
        ${THROTTLE:+--throttle "$THROTTLE"} "--sbatch-extra=$SBATCH_EXTRA" ${SCRIPTS:+--scripts} "$@"
}

words() {                                                     # a setting as an array: words with blanks or line breaks
    local -n setting=$1                                       # between them, from the environment or else these
    local text=${setting:-${2-}}
    setting=()
    read -d '' -ra setting <<< "$text" || true
}

whole() {                                                     # refuse a setting that is no whole number from 1 to so many
    [[ ${!1} =~ ^[1-9][0-9]{0,8}$ && ${!1} -le $2 ]] || refuse "$1=${!1}: give a whole number from 1 to $2"
}
