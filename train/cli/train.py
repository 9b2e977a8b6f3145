"""The command `amtl-train`: its options, and the config built from them and from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from shards.schema import TASKS
from train.cli.console import HELP, Console, Grouped, exit_codes, stop_signals, version_option
from train.config import (
    MODES,
    Backbone,
    BalanceMethod,
    ConfigError,
    Device,
    Document,
    NetworkName,
    Norm,
    Order,
    Precision,
    RunConfig,
    to_document,
)
from train.run_folder import BEST, CONFIG_FILE, EVALUATION_FILE, METRICS_FILE, PICTURES, TABLE_FILE

if TYPE_CHECKING:
    from train.engine.run import Run


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
                raise click.BadParameter(f"must be {parameter.metavar}, got {value}")
        return table

    return parse


GROUPS = {  # heading in --help -> options
    "The run": ("--mode", "--task", "--shards", "--out", "--config", "--resume", "--epochs", "--seed", "--device",
                "--workers", "--best", "--wandb", "--version", "--help"),
    "Network and first weights": ("--network", "--backbone", "--width", "--norm", "--precision", "--compile",
                                          "--weights", "--init-from"),
    "Training data": ("--order", "--shuffle-shards", "--batch-size", "--micro-batch", "--augment",
                          "--keep-labels", "--one-label", "--require-all", "--allow-missing",
                          "--repeat-rare"),
    "Losses and steps (PART is shared or a task; if not asymmetric, all)": (
        "--learning-rate", "--threshold", "--coefficient", "--coefficients-from", "--balance"),
}  # fmt: skip


@click.command(cls=Grouped, groups=GROUPS, context_settings=HELP)
@version_option
@click.option("--mode", type=click.Choice(MODES), metavar="MODE", help="Regime: asymmetric, symmetric or single")
@click.option(
    "--task", type=click.Choice(TASKS), metavar="TASK", help="Mode single: steering, segmentation, boxes or depth"
)
@click.option("--shards", metavar="DIR", help="Set of shards: folder, URL or pipe: pattern [shards]")
@click.option("--out", metavar="DIR", help="Folder of the run [runs/MODE]")
@click.option("--config", "config_name", metavar="FILE", help="Options from a TOML file, or the preset thesis")
@click.option("--resume", is_flag=True, help="Continue the run in --out")
@click.option("--epochs", type=int, metavar="N", help="Passes over the data [asymmetric: 10, else 40]")
@click.option("--seed", type=int, metavar="N", help="Seed of first weights and of the order of items [0]")
@click.option(
    "--device",
    type=click.Choice(get_args(Device)),
    metavar="NAME",
    help="auto, cpu or cuda [auto: a GPU if there is one]",
)
@click.option("--workers", type=int, metavar="N", help="Threads that read samples [CPU: none, GPU: up to 8]")
@click.option("--best", metavar="METRIC", help='Criterion of best.pt: loss, or "boxes mAP50" [loss]')
@click.option("--wandb", metavar="PROJECT", help="Log to this Weights & Biases project (extra wandb)")
@click.option("--network", "network__name", type=click.Choice(get_args(NetworkName)), metavar="NAME",
              help="mtl (multi-task) or stl (single-task) [single: stl]")  # fmt: skip
@click.option("--backbone", "network__backbone", type=click.Choice(get_args(Backbone)), metavar="NAME",
              help="Backbone of mtl: resnet50 or resnet18 [resnet50]")  # fmt: skip
@click.option("--width", "network__width", type=float, metavar="X", help="Factor on the channels of neck and heads [1]")
@click.option("--norm", "network__norm", type=click.Choice(get_args(Norm)), metavar="NAME",
              help="Norm: frozen, group, sample, batch [by --weights]")  # fmt: skip
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    metavar="NAME",
    help="Arithmetic: fp32, tf32, bf16 [auto: bf16 if fast]",
)
@click.option("--compile", is_flag=True, default=None, help="Use torch.compile: slower start, faster on a GPU")
@click.option(
    "--weights", "network__weights", metavar="FILE", help="Of the backbone: auto (ImageNet), none, FILE [auto]"
)
@click.option("--init-from", metavar="CHECKPOINT", help="Start from the weights of CHECKPOINT that fit")
@click.option("--order", "stream__order", type=click.Choice(get_args(Order)), metavar="NAME",
              help="items, or samples: an image's labels together [items]")  # fmt: skip
@click.option("--shuffle-shards", "stream__shuffle_shards", type=int, metavar="N",
              help="Shards per block of the shuffle; 0 means all [0]")  # fmt: skip
@click.option("--batch-size", "stream__batch_size", type=int, metavar="N",
              help="Images per step; asymmetric: in validation only [4]")  # fmt: skip
@click.option("--micro-batch", "stream__micro_batch", type=int, metavar="N",
              help="Images per forward pass; affects speed only [8]")  # fmt: skip
@click.option(
    "--augment", "augment__on", is_flag=True, default=None, help="Mirror half of the images and vary their colours"
)
@click.option("--keep-labels", "stream__keep_labels", multiple=True, callback=pairs(float), metavar="TASK=X",
              help="Keep this share of a task's labels: boxes=0.1")  # fmt: skip
@click.option("--one-label", "stream__one_label", is_flag=True, default=None, help="Keep one label of each sample")
@click.option("--require-all", "stream__require_all", is_flag=True, default=None,
              help="Use only samples that have all four labels")  # fmt: skip
@click.option("--allow-missing", "stream__allow_missing", is_flag=True, default=None,
              help="Symmetric: also use samples that lack labels")  # fmt: skip
@click.option("--repeat-rare", "stream__repeat_rare", type=int, metavar="N",
              help="Asymmetric: repeats of a rare label per epoch [1]")  # fmt: skip
@click.option(
    "--learning-rate", multiple=True, callback=pairs(float), metavar="PART=X", help="Learning rate of Adam [by part]"
)
@click.option("--threshold", multiple=True, callback=pairs(int), metavar="PART=N",
              help="Asymmetric: items per optimizer step [16 to 48]")  # fmt: skip
@click.option(
    "--coefficient",
    multiple=True,
    callback=pairs(float),
    metavar="TASK=X",
    help="Divisor of the task's loss [1 to 400]",
)
@click.option("--coefficients-from", multiple=True, type=click.Path(exists=True, path_type=Path), metavar="RUN",
              help="Take a coefficient from a single-task run's val loss")  # fmt: skip
@click.option("--balance", "balance__method", type=click.Choice(get_args(BalanceMethod)), metavar="NAME",
              help="fixed, epoch, uncertainty or pcgrad [fixed]")  # fmt: skip
def main(config_name: str | None, resume: bool, coefficients_from: tuple[Path, ...], **options: Any) -> None:
    """Train a network on a set of shards. docs/commands.md explains the options, docs/hpc.md several GPUs.

    Ctrl-C, SIGTERM and SIGUSR1 stop the run with exit code 75. Its work is saved, and --resume continues it.
    """
    with exit_codes("amtl-train", "the same command with --resume goes on"), stop_signals() as stopping:
        config = config_of_options(options, config_name, resume, coefficients_from)
        run_training(config, resume=resume, stopping=stopping, divisors_found=bool(coefficients_from))


def run_training(config: RunConfig, *, resume: bool, stopping: Callable[[], bool], divisors_found: bool) -> None:
    """Train, measure and report, on this rank."""
    from train.cli.listener import TrainingListener
    from train.engine.distributed import process_group
    from train.engine.loop import train
    from train.engine.run import prepare
    from train.report.tensorboard import check_wandb

    with process_group(config.device) as ranks:
        console = Console(quiet=not ranks.is_main)
        if divisors_found:
            divisors = ", ".join(f"{task} {divisor:.4g}" for task, divisor in config.coefficient.items())
            console.say(f"each loss is divided by its coefficient: {divisors}")
        run: Run | None = None
        listener: TrainingListener | None = None
        try:
            if config.wandb is not None and ranks.is_main:
                check_wandb()
            run = prepare(config, resume=resume, stopping=stopping, reporter=console, ranks=ranks)
            if ranks.is_main:
                sent = to_document(run.config)
                listener = TrainingListener(run.folder, run.progress.groups, config.wandb, sent, console.say)
            train(run, console, listener)
            if ranks.is_main:
                report_result(run, console)
        finally:
            console.close()
            if listener is not None:
                listener.close()
            if run is not None:
                run.close()


def config_of_options(
    options: Document, config_name: str | None, resume: bool, coefficients_from: tuple[Path, ...]
) -> RunConfig:
    """Return the run's config; coefficients come from single-task runs where these are named."""
    from train.engine.balance import coefficients_from as find_coefficients

    options["coefficient"] = {**find_coefficients(coefficients_from), **options["coefficient"]}
    config = read_config(options, config_name, resume)
    if not coefficients_from:
        return config
    if config.mode == "single":
        raise ConfigError("--coefficients-from balances tasks, and mode single has one")
    lacking = sorted(set(config.coefficient) - set(options["coefficient"]))
    if lacking:
        raise ConfigError(
            f"--coefficients-from needs a run of every task, got none of {', '.join(lacking)}: "
            f"name one, or give --coefficient {lacking[0]}=X"
        )
    return config


def report_result(run: Run, console: Console) -> None:
    """Evaluate `best.pt`, write the run's documents, and print the result."""
    from train.engine.outcome import finish
    from train.report.run_report import write_run_report
    from train.report.text import result_lines

    record = finish(run)
    card = write_run_report(run.folder)
    what = f"{BEST}, epoch {record['epoch']} of {run.progress.epoch}"
    for line in result_lines(record, what, apart=False):
        console.say(line)
    console.say(f"in {run.folder}: {BEST}, {EVALUATION_FILE}, {METRICS_FILE}, {PICTURES}/ and {TABLE_FILE}, "
                "which also has the results by class, distance and angle")  # fmt: skip
    console.say(card)


def read_config(options: Document, config_name: str | None, resume: bool) -> RunConfig:
    """Return options over --config over, with --resume, the run folder's own config, where `auto` is settled."""
    from train.presets import build_config, load_document, merge

    given = merge(load_document(config_name) if config_name else {}, nest(options))
    folder = given.get("out") or (f"runs/{given['mode']}" if given.get("mode") in MODES else None)
    if not resume or not isinstance(folder, str) or not (Path(folder) / CONFIG_FILE).is_file():
        return build_config(given)
    held = load_document(str(Path(folder) / CONFIG_FILE))
    if given.get("mode", held.get("mode")) != held.get("mode"):
        raise ValueError(f"{folder} holds a run of mode {held.get('mode')}, got --mode {given['mode']}")
    if given.get("precision") == "auto":
        del given["precision"]
    network = given.get("network")
    if isinstance(network, dict):
        given["network"] = {key: value for key, value in network.items() if value != "auto"}
    return build_config(held, {**given, "out": folder})


def nest(options: Document) -> Document:
    """`network__norm` -> the key `norm` of table `network`; options that were not given are left out."""
    from train.presets import merge

    document: Document = {}
    for name, value in options.items():
        if value is not None and value != {}:
            table, _, key = name.partition("__")
            document = merge(document, {table: {key: value}} if key else {table: value})
    return document
