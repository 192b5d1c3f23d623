# Sourced by demo and test: `prepare EXTRA` makes .venv in the repository root and installs gn-deploy[EXTRA] into it.
#
# 1. torch comes first and alone, as the CPU build: what PyPI calls torch brings gigabytes of CUDA on Linux.
#    A torch already in .venv is kept, whatever its version, and nothing installed later may replace it.
# 2. .venv/gn-deploy.EXTRA is written last and holds what was installed; while it is true nothing is done again.
#    Whatever was interrupted is therefore repeated. The extra "test" contains "demo".

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
TORCH_VERSION=2.13.0

say() { printf '%s\n' "$*" >&2; }

prepare() {
    local extra="$1"
    is_ready "$extra" && return
    local start=$SECONDS
    usable_venv || make_venv
    install_torch
    say "Installing gn-deploy[$extra] into .venv (minutes the first time)"
    local torch
    torch="$(installed torch)"
    printf 'torch==%s\n' "$torch" >"$VENV/constraints.txt"
    pip --constraint "$VENV/constraints.txt" --editable "$ROOT[$extra]"
    fingerprint >"$VENV/gn-deploy.$extra"
    say "Ready in $((SECONDS - start)) s"
}

is_ready() {
    usable_venv || return 1
    local now stamp
    now="$(fingerprint)"
    for stamp in "$1" test; do
        [[ -f "$VENV/gn-deploy.$stamp" && "$(<"$VENV/gn-deploy.$stamp")" == "$now" ]] && return
    done
    return 1
}

fingerprint() { # what an installation depends on
    "$VENV/bin/python" --version
    cksum <"$ROOT/pyproject.toml"
    cksum <"$ROOT/scripts/environment.sh"
}

usable_venv() { # a half-made or moved one is not
    grep -qsF "$VENV" "$VENV/bin/activate" && compgen -G "$VENV/bin/pip*" >/dev/null && "$VENV/bin/python" --version >/dev/null 2>&1
}

make_venv() {
    local python
    python="$(find_python)"
    say "Making .venv with $("$python" --version)"
    "$python" -m venv --clear "$VENV"
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    say "Python 3.11 or later is needed and not on PATH; python3 is $(python3 --version 2>&1 || true)"
    say "  install it, or say where it is: PYTHON=/path/to/python3.12 $0"
    return 3
}

install_torch() {
    [[ -n "$(installed torch)" ]] && return
    say "Installing torch $TORCH_VERSION for CPU into .venv"
    if [[ "$(uname -s)" != Linux ]]; then
        pip "torch==$TORCH_VERSION" # elsewhere PyPI's own build is the CPU one
    elif ! pip "torch==$TORCH_VERSION+cpu" 2>/dev/null; then # the configured index may have it; PyPI does not
        pip "torch==$TORCH_VERSION" --extra-index-url https://download.pytorch.org/whl/cpu
    fi
}

installed() { # version of an installed package, or nothing
    "$VENV/bin/python" -c 'import importlib.metadata as m, sys; print(next((d.version for d in m.distributions(name=sys.argv[1])), ""))' "$1"
}

pip() { # errors only
    "$VENV/bin/python" -m pip install -qq --no-input --disable-pip-version-check "$@"
}
