#!/usr/bin/env bash
# Cross-builds the kernels for aarch64 and checks them on emulated CPUs.
#
#   run.sh                     all of it, in a temporary folder
#   run.sh tools               exit code 3, with the command to install them, if tools are missing
#   run.sh build FOLDER        cross-builds
#   run.sh separate FOLDER     instructions and symbols stay in the objects of their instruction set
#   run.sh dispatch FOLDER CPU every table that CPU has is offered, and none that it lacks
#   run.sh check FOLDER CPU [ARGUMENT...]   kernel_check --quick, or with other arguments
#
# CPU is what qemu calls it: cortex-a53, cortex-a72, cortex-a76, max.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

# CPU, extensions, tables that must be offered.
cpus=(
    "cortex-a53||portable neon"
    "cortex-a72||portable neon"
    "cortex-a76|dot|portable neon neondot"
    "max|dot i8mm|portable neon neondot neoni8mm"
)

fail() {
    echo "run.sh: $*" >&2
    exit 1
}

tools() {
    local missing=()
    command -v aarch64-linux-gnu-g++ >/dev/null || missing+=(g++-aarch64-linux-gnu)
    command -v qemu-aarch64-static >/dev/null || missing+=(qemu-user-static)
    command -v cmake >/dev/null || missing+=(cmake)
    if ((${#missing[@]})); then
        echo "run.sh: missing; on Debian or Ubuntu: apt-get install ${missing[*]}" >&2
        exit 3
    fi
}

emulate() { # CPU PROGRAM ARGUMENT...
    qemu-aarch64-static -cpu "$@"
}

build() { # FOLDER
    cmake -S "$here" -B "$1" -DCMAKE_TOOLCHAIN_FILE="$here/aarch64.cmake" \
        -DCMAKE_BUILD_TYPE=Release >"$1.log" 2>&1 &&
        cmake --build "$1" --parallel "$(nproc)" >>"$1.log" 2>&1 || {
        tail -n 40 "$1.log" >&2
        fail "the cross build failed, see $1.log"
    }
}

has_instructions() { # OBJECT PATTERN
    aarch64-linux-gnu-objdump -d "$1" | grep -E "$2" >/dev/null
}

separate() { # FOLDER
    local object extension symbols
    local dot='\b[su]dot\b' matrix='\b(us?|s)mmla\b'
    for object in $(find "$1" -name '*.cpp.o' -path '*native_ops_kernels*'); do
        case "$(basename "$object")" in
        neoni8mm_*) extension='' ;;
        neondot_*) extension="$matrix" ;;
        roofline_arm.*) extension='' ;; # one function for each, behind its own check
        *) extension="$dot|$matrix" ;;
        esac
        if [[ -n "$extension" ]] && has_instructions "$object" "$extension"; then
            fail "$object has instructions of another instruction set"
        fi
        # A linker may keep either copy of a weak symbol, for all callers.
        symbols="$(aarch64-linux-gnu-nm --defined-only "$object" | grep -E ' [WVu] ' || true)"
        case "$object" in
        */arm/neon*) [[ -z "$symbols" ]] || fail "$object has weak symbols: $symbols" ;;
        esac
    done
    # The searches above find what they look for.
    has_instructions "$(find "$1" -name 'neondot_layers.cpp.o')" "$dot" ||
        fail "no dot product in neondot_layers"
    has_instructions "$(find "$1" -name 'neoni8mm_layers.cpp.o')" "$matrix" ||
        fail "no matrix product in neoni8mm_layers"
}

dispatch() { # FOLDER CPU
    local line name extensions expected offered extension code
    for line in "${cpus[@]}"; do
        IFS='|' read -r name extensions expected <<<"$line"
        [[ "$name" == "$2" ]] || continue
        offered="$(emulate "$2" "$1/cpu_check" | xargs)"
        [[ "$offered" == "$expected" ]] || fail "$2 is offered: $offered, not: $expected"
        # Were a table offered wrongly, the emulated CPU would notice.
        for extension in dot i8mm; do
            code=0
            (ulimit -c 0 && emulate "$2" "$1/cpu_check" "$extension") 2>/dev/null || code=$?
            if [[ " $extensions " == *" $extension "* ]]; then
                ((code == 0)) || fail "$2 does not run $extension: exit code $code"
            else
                ((code == 132)) || fail "$2 runs $extension, which it should lack: exit code $code"
            fi
        done
        return
    done
    fail "no CPU $2 here"
}

check() { # FOLDER CPU ARGUMENT...
    local folder="$1" cpu="$2"
    shift 2
    (($#)) || set -- --quick
    emulate "$cpu" "$folder/kernel_check/kernel_check" "$@"
}

everything() {
    local folder line cpu
    folder="$(mktemp -d)"
    trap 'rm -rf "$folder"' EXIT
    build "$folder/build"
    separate "$folder/build"
    for line in "${cpus[@]}"; do
        cpu="${line%%|*}"
        echo "== $cpu"
        dispatch "$folder/build" "$cpu"
        check "$folder/build" "$cpu"
    done
}

tools
case "${1:-everything}" in
tools) ;;
everything | build | separate | dispatch | check) "${1:-everything}" "${@:2}" ;;
*) fail "no step $1" ;;
esac
