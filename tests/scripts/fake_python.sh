#!/usr/bin/env bash
# Stands in for python3 and .venv/bin/python: makes a hollow .venv, and writes down what pip was asked to install.
here="$(dirname "${BASH_SOURCE[0]}")"
case "$*" in
    --version) echo "Python ${FAKE_VERSION:-3.12.1}" ;;
    "-m venv --clear "*)
        echo "venv" >>"$FAKE_LOG"
        mkdir -p "$4/bin"
        rm -f "$4"/* "$4"/bin/* 2>/dev/null
        cp "${BASH_SOURCE[0]}" "$4/bin/python"
        echo "VIRTUAL_ENV=$4" >"$4/bin/activate"
        touch "$4/bin/pip"
        for tool in gn-deploy ruff mypy lint-imports pytest; do
            printf '#!/usr/bin/env bash\necho "ran %s $* in $PWD"\n[[ "$FAKE_FAULT" != %s ]]\n' "$tool" "$tool" >"$4/bin/$tool"
            chmod +x "$4/bin/$tool"
        done
        ;;
    "-m pip install "*)
        echo "pip ${*: -1} ${*: -2:1}" >>"$FAKE_LOG"
        [[ -n "$FAKE_FAULT" && "$*" == *"$FAKE_FAULT"* ]] && exit 1
        [[ "$*" == *torch==* ]] && echo 2.13.0+cpu >"$here/torch"
        exit 0
        ;;
    "-m pytest"*) echo "ran $* in $PWD" ;;
    "-c "*" torch") cat "$here/torch" 2>/dev/null || true ;;
    "-c "*version_info*) [[ "${FAKE_VERSION:-3.12.1}" != 3.10* ]] ;;
    *) echo "unexpected: $*" >&2 && exit 99 ;;
esac
