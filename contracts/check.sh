#!/bin/sh
# What CI runs: install, rebuild every artifact and compare, forge's tests and invariants. No network beyond npm ci.
# forge comes as a package for Linux on x86-64; elsewhere say where it is: FORGE=forge ./check.sh
set -eu
cd "$(dirname "$0")"
[ -d node_modules/solc ] || npm ci --ignore-scripts --no-audit --no-fund
node build.mjs --check
"${FORGE:-node_modules/@foundry-rs/forge-linux-amd64/bin/forge}" test
