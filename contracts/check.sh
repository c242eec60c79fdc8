#!/bin/sh
# What CI runs: install, rebuild every artifact and compare, forge's invariants. No network beyond npm ci.
set -eu
cd "$(dirname "$0")"
[ -d node_modules/solc ] || npm ci --ignore-scripts --no-audit --no-fund
node build.mjs --check
forge="$(echo node_modules/@foundry-rs/forge-*/bin/forge)"
"$forge" test
