#!/bin/sh
# Compress a checkpoint, check it and publish it: pipeline.sh CHECKPOINT DATA PUBLIC [options of compress]
# The exit code is that of madtp: 4 if the budget cannot be met, 5 if a gate fails.
set -eu
checkpoint=$1 data=$2 public=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

madtp compress "$checkpoint" --data "$data" --gflops-budget "${BUDGET:-0.5}" --quiet -o "$work/pruned" "$@"
madtp check "$work/pruned" ${GATES:---max-drop 1 --max-share 0.55} --junit "${JUNIT:-gates.xml}"

mkdir -p "$public"
cp -r "$work/pruned/." "$public"
echo "published in $public"
