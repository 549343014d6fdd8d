#!/usr/bin/env bash
# Builds the wheel that a device installs: application, models, kernels and ExecuTorch's runtime
# library, so that it needs neither PyTorch nor ExecuTorch's Python package.
#
#   wheel.sh ARCHITECTURE FOLDER   FOLDER gets the wheel for x86_64 or aarch64; prints its path
#   wheel.sh tools ARCHITECTURE    exit code 3 and how to install it if a tool is missing
#
# PYTHON, else that of .venv, has the build tools; the wheel is for its version. Another architecture
# than this machine's is cross-built against that architecture's ExecuTorch.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(dirname "$here")"
python="${PYTHON:-$root/.venv/bin/python}"

fail() {
    echo "wheel.sh: $*" >&2
    exit 1
}

tools() { # ARCHITECTURE
    if [[ "$1" != "$(uname -m)" ]] && ! command -v "$1-linux-gnu-g++" >/dev/null; then
        echo "wheel.sh: missing; on Debian or Ubuntu: apt-get install g++-${1//_/-}-linux-gnu" >&2
        exit 3
    fi
    "$here/ui/build.sh" tools
}

# Prints the folder of the package executorch for ARCHITECTURE.
executorch() { # ARCHITECTURE
    local version folder
    version="$(sed -n 's/^set(EXECUTORCH_VERSION \([^)]*\)).*/\1/p' "$root/CMakeLists.txt")"
    folder="$root/build/executorch-$version-$1"
    if [[ ! -d "$folder" ]]; then
        mkdir -p "$folder.part"
        "$python" -m pip download --quiet --no-deps --only-binary=:all: \
            --platform "manylinux_2_28_$1" --dest "$folder.part" "executorch==$version" >&2
        "$python" -m zipfile -e "$folder.part/"*.whl "$folder.part"
        rm "$folder.part/"*.whl
        mv "$folder.part" "$folder"
    fi
    echo "$folder/executorch"
}

# CPython's headers are the same everywhere but for pyconfig.h, which is the same on every 64-bit
# Linux as far as an extension sees it. Debian has one for each architecture, of which only this
# machine's is installed, and one beside the other headers that chooses among them: prints a folder in
# which this machine's also has the other's name.
headers() { # ARCHITECTURE VERSION
    local folder="$root/build/headers-$1" config
    config="$("$python" -c '
import sysconfig
from pathlib import Path
config = Path(sysconfig.get_config_h_filename())
chosen = config.parents[1] / str(sysconfig.get_config_var("MULTIARCH")) / config.parent.name / config.name
print(chosen if chosen.exists() else config)')"
    mkdir -p "$folder/$1-linux-gnu/python$2"
    cp "$config" "$folder/$1-linux-gnu/python$2/pyconfig.h"
    echo "$folder"
}

build() { # ARCHITECTURE FOLDER
    local raw wheel settings=()
    tools "$1"
    "$here/ui/build.sh" >&2
    mkdir -p "$2" "$root/build"
    raw="$(mktemp -d "$root/build/wheel.XXXXXX")"
    trap 'rm -rf "'"$raw"'"' EXIT
    if [[ "$1" != "$(uname -m)" ]]; then
        local version include package
        version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
        # How build backends are told the target's name and the suffix of its extensions.
        export _PYTHON_HOST_PLATFORM="linux-$1"
        export SETUPTOOLS_EXT_SUFFIX=".cpython-${version/./}-$1-linux-gnu.so"
        include="$(headers "$1" "$version")"
        package="$(executorch "$1")"
        # In full: `-C` is newer than the pip of some Pythons that are still in use.
        settings+=(
            --config-settings "cmake.define.CMAKE_TOOLCHAIN_FILE=$here/$1.cmake"
            --config-settings "cmake.define.CMAKE_CXX_FLAGS=-I$include"
            --config-settings "cmake.define.executorch_DIR=$package/lib/cmake/executorch"
        )
    fi
    "$python" -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps \
        "${settings[@]}" --wheel-dir "$raw" "$root"
    # The libraries are inside already. This names the oldest systems that have the rest.
    PATH="$(dirname "$python"):$PATH" "$python" -m auditwheel repair --wheel-dir "$raw/repaired" \
        "$raw/"*.whl >"$raw/log" 2>&1 || {
        cat "$raw/log" >&2
        fail "auditwheel refuses the wheel"
    }
    wheel="$(basename "$raw/repaired/"*.whl)"
    mv "$raw/repaired/$wheel" "$2/"
    echo "$2/$wheel"
}

case "${1:-}" in
tools) tools "$2" ;;
x86_64 | aarch64) build "$1" "$2" ;;
*) fail "no architecture '${1:-}': x86_64 or aarch64" ;;
esac
