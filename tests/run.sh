#!/usr/bin/env bash
# Makes what the tests need, then runs every one of them.
#
#   bash tests/run.sh                     installs nothing on the system; what cannot run then is skipped by name
#   bash tests/run.sh --system-packages   installs the Debian packages named below first, and PyTorch in its environment
#   bash tests/run.sh --nightly           also the tests that take minutes
#
# Anything after -- goes to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

debian=(bindfs chromium e2fsprogs faketime fonts-dejavu-core git libgomp1 mount python3-venv strace)

system=no nightly=() pass=()
while [ $# -gt 0 ]; do
    case "$1" in
        --system-packages) system=yes ;;
        --nightly) nightly=(--nightly) ;;
        --) shift; pass=("$@"); break ;;
        *) echo "unknown option $1: see the first lines of tests/run.sh" >&2; exit 2 ;;
    esac
    shift
done

if [ "$system" = yes ]; then
    missing=()
    for package in "${debian[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        echo "== Debian packages: ${missing[*]}"
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"
    fi
fi

# The first Python that is new enough runs everything; each other one on the machine runs what depends on Python.
usable() { "$1" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }
main="" others=() seen=" "
for python in python3 python3.11 python3.12 python3.13 ~/.pyenv/versions/3.1[123].*/bin/python; do
    path=$(command -v "$python" 2>/dev/null) && usable "$path" || continue
    version=$("$path" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    case "$seen" in *" $version "*) continue ;; esac
    seen+="$version "
    if [ -z "$main" ]; then main=$path; else others+=("$version=$path"); fi
done
[ -n "$main" ] || { echo "Python 3.11, 3.12 or 3.13 with its venv module is needed" >&2; exit 3; }

export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=
prepare() {  # folder python extras… : a virtual environment that has this very source installed
    local folder=$1 python=$2 extras=$3
    shift 3
    [ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet "$@" -e ".[$extras]"
}

echo "== $("$main" --version), everything"
pins=()
# PyTorch's builds for GPUs are several GB: this release is the one with a small build where an index offers it.
if [ "$system" = yes ]; then pins=('torch==2.13.0'); fi
prepare .venv-test "$main" test ${pins[@]+"${pins[@]}"}
# The others are made before, since some tests need a second Python beside their own.
for pair in ${others[@]+"${others[@]}"}; do
    version=${pair%%=*} pins=()
    if [ "$version" = 3.12 ]; then pins=('pandas>=2.2,<2.3'); fi  # the older of the two pandas whose frames have one digest
    prepare ".venv-test-$version" "${pair#*=}" test-core ${pins[@]+"${pins[@]}"}
done
bin=$PWD/.venv-test/bin
export PATH="$bin:$PATH"
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
"$bin/lint-imports"
# Two processes at most: the tests start kernels and servers of their own. What shares a file runs in one of them.
pytest=(-m pytest -q -n "$(( $(nproc) < 2 ? 1 : 2 ))" --dist loadfile)
"$bin/python" "${pytest[@]}" "${nightly[@]}" "${pass[@]}"

for pair in ${others[@]+"${others[@]}"}; do
    version=${pair%%=*}
    echo "== Python $version, what depends on it"
    # (PyTorch is tested once, above)
    ".venv-test-$version/bin/python" "${pytest[@]}" -k 'not tensors_and_modules' tests/test_records.py tests/test_formats.py tests/test_store.py \
        tests/test_fingerprints.py tests/test_lineage.py tests/test_namespace.py tests/test_capture.py tests/test_registry.py tests/test_models.py
done
