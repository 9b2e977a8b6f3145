#!/bin/sh
# Trains the columns of table 4.1 of the thesis: asymmetric, symmetric, single-task networks, and the multi-task network
# on one task. After a stop, the same command continues. For A2D2:
# SHARDS=shards CONFIG=thesis SEEDS="0 1 2" sh examples/experiment.sh
set -eu

SHARDS=${SHARDS:-shards}          # the set of shards
CONFIG=${CONFIG:-thesis}          # options of amtl-train for all modes: a TOML file or the preset
OUT=${OUT:-runs/experiment}       # one folder per run, and report.html
SEEDS=${SEEDS:-0}                 # each column is trained once per seed
TASKS="steering segmentation boxes depth"

train() { # NAME OPTION...: skips a finished run, continues a stopped one
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
