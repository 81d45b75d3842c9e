#!/bin/sh
# Print a supported Python of this machine that works: the newest, or with `oldest` the oldest.
# Looks on the PATH and under pyenv, whose commands may be there without a Python behind them.
root=$(dirname "$0")/..
versions=$(sed -n 's/.*Programming Language :: Python :: \(3\.[0-9]*\)".*/\1/p' "$root/pyproject.toml" | sort -t. -k2 -n)
[ "${1:-newest}" = oldest ] || versions=$(printf '%s\n' "$versions" | sort -t. -k2 -rn)
check='import ensurepip, ssl, sys, venv; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])'
for version in $versions; do
    for python in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/"python$version" python3; do
        if "$python" -c "$check" "$version" >/dev/null 2>&1; then
            command -v "$python"
            exit
        fi
    done
done
echo "no Python of the supported versions was found: $(echo $versions)" >&2
exit 1
