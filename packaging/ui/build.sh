#!/usr/bin/env bash
# Brings uPlot, the page's curves, into edge_app/serve/assets: exactly the version and the bytes that
# package-lock.json names. Without npm the page shows tables instead.
#
#   build.sh          does nothing where the files are there already
#   build.sh tools    exit code 3 and how to install npm if it is missing
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
assets="$(dirname "$(dirname "$here")")/edge_app/serve/assets"

if ! command -v npm >/dev/null; then
    echo "build.sh: npm is missing; on Debian or Ubuntu: apt-get install npm" >&2
    exit 3
fi
if [[ "${1:-}" == tools ]]; then
    exit 0
fi
if [[ "$assets/LICENSE-uPlot" -nt "$here/package-lock.json" ]]; then
    exit 0
fi

# A folder of its own: nothing of an earlier attempt is mixed in, and a failed one leaves nothing.
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cp "$here/package.json" "$here/package-lock.json" "$folder/"
(cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
mkdir -p "$assets"
package="$folder/node_modules/uplot"
for file in dist/uPlot.iife.min.js dist/uPlot.min.css; do
    cp "$package/$file" "$assets/.part"
    mv "$assets/.part" "$assets/$(basename "$file")"
done
# Last, because its date says that all is there.
cp "$package/LICENSE" "$assets/.part"
mv "$assets/.part" "$assets/LICENSE-uPlot"
