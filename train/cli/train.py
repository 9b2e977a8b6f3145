"""`amtl-train`: its options, and the config that they and a file make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from models.backbone import BACKBONES, NORMS
from shards.schema import TASKS
from train.balance import coefficients_from as find_coefficients
from train.cli.console import HELP, Console, exit_codes, stop_signals
from train.config import (
    BALANCES,
    DEVICES,
    MODES,
    NETWORKS,
    ORDERS,
    PRECISIONS,
    Document,
    RunConfig,
    build_config,
    load_document,
    merge,
)
from train.loop import train as train_run
from train.outcome import finish
from train.ranks import joined_ranks
from train.run import CONFIG_FILE, Run, prepare


def pairs(number: Callable[[str], float]) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], Document]:
    """A callback that turns repeated PART=NUMBER, or several with commas between, into a table."""

    def parse(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Document:
        table = {}
        for value in (pair for given in values for pair in given.split(",")):
            part, equals, text = value.partition("=")
            try:
                table[part.strip()] = number(text)
            except ValueError:
                equals = ""
            if not equals:
                raise click.BadParameter(f"must be PART={number.__name__.upper()}, got {value}")
        return table

    return parse


@click.command(context_settings=HELP)
@click.option("--mode", type=click.Choice(MODES), help="How to train; needed unless --config says it.")
@click.option("--shards", help="Folder that a2d2-prep wrote [default: shards].")
@click.option("--task", type=click.Choice(TASKS), help="The task of --mode single.")
@click.option("--network", "network__name", type=click.Choice(NETWORKS), help="mtl: the multi-task network; "
              "stl: the task's own, in --mode single [default there].")  # fmt: skip
@click.option("--config", "config_name", help="TOML file of options, or the preset `thesis`.")
@click.option("--out", help="Run folder [default: runs/<mode>].")
@click.option("--epochs", type=int, help="[default: asymmetric 10, else 40]")
@click.option("--seed", type=int, help="[default: 0]")
@click.option("--device", type=click.Choice(DEVICES), help="[default: auto, a GPU where there is one]")
@click.option("--workers", type=int, help="Reading threads [default: none on a CPU, up to 8 beside a GPU].")
@click.option("--order", "stream__order", type=click.Choice(ORDERS), help="items: labels shuffled independently; "
              "samples: an image's labels together, read once [default: items].")  # fmt: skip
@click.option("--augment", "augment__on", is_flag=True, default=None, help="Mirror half of the training images with "
              "their labels, and vary brightness, contrast and saturation by a fifth.")  # fmt: skip
@click.option("--shuffle-shards", "stream__shuffle_shards", type=int, help="Shards in a block of the shuffle [all].")
@click.option("--batch-size", "stream__batch_size", type=int, help="Samples of a step; of validation everywhere [4].")
@click.option("--micro-batch", "stream__micro_batch", type=int,
              help="Images that go through the network together; changes speed and memory, no result [8].")  # fmt: skip
@click.option("--allow-missing", "stream__allow_missing", is_flag=True, default=None,
              help="Symmetric: train also on samples that lack labels.")  # fmt: skip
@click.option("--keep-labels", "stream__keep_labels", multiple=True, callback=pairs(float), metavar="TASK=SHARE",
              help="Use only this share of a task's train labels, chosen by key: boxes=0.1,depth=0.5.")  # fmt: skip
@click.option("--one-label", "stream__one_label", is_flag=True, default=None,
              help="Use one label of each train sample, chosen by key.")  # fmt: skip
@click.option("--repeat-rare", "stream__repeat_rare", type=int,
              help="Asymmetric: repeat labels of rarer tasks in an epoch, at most so often [1].")  # fmt: skip
@click.option("--balance", "balance__method", type=click.Choice(BALANCES), help="fixed coefficients, re-set after "
              "every epoch, learnt (uncertainty), or fixed with PCGrad on the shared part [fixed].")  # fmt: skip
@click.option("--precision", type=click.Choice(PRECISIONS), help="Of the network's arithmetic [fp32].")
@click.option("--weights", "network__weights", help="Backbone: auto (ImageNet), none, or a file [default: auto].")
@click.option("--init-from", metavar="CHECKPOINT", help="Start with its weights, as far as they fit: other heads, "
              "other classes, another image size.")  # fmt: skip
@click.option("--norm", "network__norm", type=click.Choice(("auto", *NORMS)),
              help="[default: frozen with pretrained weights, group from scratch]")  # fmt: skip
@click.option("--backbone", "network__backbone", type=click.Choice(BACKBONES), help="[resnet50]")
@click.option("--width", "network__width", type=float, help="Scales neck and heads, or an stl network [default: 1].")
@click.option("--threshold", multiple=True, callback=pairs(int), metavar="PART=N",
              help="Asymmetric: items between two steps of a part (shared or a task); repeats.")  # fmt: skip
@click.option("--learning-rate", multiple=True, callback=pairs(float), metavar="PART=X",
              help="Adam's, of a part (asymmetric: shared or a task; else `all`); repeats.")  # fmt: skip
@click.option("--coefficient", multiple=True, callback=pairs(float), metavar="TASK=X",
              help="Divides a task's loss; repeats.")  # fmt: skip
@click.option("--coefficients-from", multiple=True, type=click.Path(path_type=Path), metavar="RUN",
              help="Take each coefficient from the val loss of a run of that task alone; repeats.")  # fmt: skip
@click.option("--best", help='What best.pt is chosen by, on val: loss, or a metric such as "boxes mAP50" [loss].')
@click.option("--wandb", metavar="PROJECT", help="Follow the run with Weights & Biases too (extra `wandb`).")
@click.option("--resume", is_flag=True, help="Go on with the run that the folder holds.")
def main(config_name: str | None, resume: bool, coefficients_from: tuple[Path, ...], **options: Any) -> None:
    """Train on shards: asymmetric, symmetric, or a single task. Several processes: torchrun, see docs/hpc.md.

    A stop by SIGTERM, SIGINT or SIGUSR1 keeps the work and exits with 75; the same command with --resume goes on.
    """
    with exit_codes("amtl-train", "the same command with --resume goes on"), stop_signals() as stopping:
        options["coefficient"] = {**find_coefficients(coefficients_from), **options["coefficient"]}
        config = read_config(options, config_name, resume)
        with joined_ranks(config.device) as ranks:
            console = Console(quiet=not ranks.first)
            run: Run | None = None
            try:
                run = prepare(config, resume=resume, stopping=stopping, reporter=console, ranks=ranks)
                train_run(run, console)
                if ranks.first:
                    finish(run, console)
            finally:
                console.close()
                if run is not None:
                    run.close()


def read_config(options: Document, config_name: str | None, resume: bool) -> RunConfig:
    """Options over --config over, with --resume, the run folder's own config, where `auto` was already settled."""
    given = merge(load_document(config_name) if config_name else {}, nest(options))
    folder = given.get("out") or (f"runs/{given['mode']}" if given.get("mode") in MODES else None)
    if not resume or not isinstance(folder, str) or not (Path(folder) / CONFIG_FILE).is_file():
        return build_config(given)
    held = load_document(str(Path(folder) / CONFIG_FILE))
    if given.get("mode", held.get("mode")) != held.get("mode"):
        raise ValueError(f"{folder} holds a run of mode {held.get('mode')}, got --mode {given['mode']}")
    network = given.get("network")
    if isinstance(network, dict):
        given["network"] = {key: value for key, value in network.items() if value != "auto"}
    return build_config(held, {**given, "out": folder})


def nest(options: Document) -> Document:
    """`network__norm` -> the key `norm` of table `network`; options that were not given are left out."""
    document: Document = {}
    for name, value in options.items():
        if value is not None and value != {}:
            table, _, key = name.partition("__")
            document = merge(document, {table: {key: value}} if key else {table: value})
    return document
