#!/bin/sh
# The thesis's comparison, Table 4.1: asymmetric, symmetric, a network per task, and the multi-task network on one task.
# Started again after a stop it goes on where it was. On A2D2: SHARDS=shards CONFIG=thesis SEEDS="0 1 2" sh examples/experiment.sh
set -eu

SHARDS=${SHARDS:-shards}          # the folder that a2d2-prep wrote
CONFIG=${CONFIG:-thesis}          # options of amtl-train that serve all modes: a TOML file, or the preset
OUT=${OUT:-runs/experiment}       # a folder per run, and report.html
SEEDS=${SEEDS:-0}                 # each column is trained once a seed
TASKS="steering segmentation boxes depth"

train() { # NAME OPTION...: a run that is finished is left alone, one that was stopped goes on
    folder="$OUT/$1"
    shift
    [ -e "$folder/eval.json" ] && return
    resume=""
    [ -e "$folder/config.toml" ] && resume=--resume
    echo "== $folder"
    amtl-train --shards "$SHARDS" --config "$CONFIG" --out "$folder" "$@" $resume
}

for seed in $SEEDS; do
    train "asymmetric-$seed" --mode asymmetric --seed "$seed"
    train "symmetric-$seed" --mode symmetric --seed "$seed"
    for task in $TASKS; do
        train "stl-$task-$seed" --mode single --task "$task" --network stl --seed "$seed"
        train "mtl-$task-$seed" --mode single --task "$task" --network mtl --seed "$seed"
    done
done

amtl-report "$OUT"/*-[0-9]* --out "$OUT/report.html"
echo "== the report is $OUT/report.html"
