#!/bin/sh
# Static analysis in an environment of its own (its pins conflict with ours): ./slither.sh, after npm ci.
set -eu
cd "$(dirname "$0")"
if [ -z "${SLITHER:-}" ]; then
  [ -x .venv/bin/slither ] || { python3 -m venv .venv && .venv/bin/pip install -q slither-analyzer==0.11.6; }
  SLITHER=.venv/bin/slither
fi
PATH="$(echo "$PWD"/node_modules/@foundry-rs/forge-*/bin):$PATH" "$SLITHER" . --fail-pedantic
