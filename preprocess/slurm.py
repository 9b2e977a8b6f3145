"""A batch script for SLURM: an array of parts, then the closing run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

_SCRIPT = """\
#!/bin/bash
# Converts A2D2 with an array of {parts} jobs; a last job then checks every shard and writes the manifest.
# Run it by hand, on a login node: bash THIS_FILE. It submits itself. After a failure run it again: it goes on.
#SBATCH --job-name=a2d2-prep
#SBATCH --cpus-per-task={cpus}
#SBATCH --mem={memory}
#SBATCH --time={time}
{extra}set -eu
command=({command})

if [ -z "${{SLURM_JOB_ID:-}}" ]; then
    array=$(sbatch --parsable --array=0-{last} --output=a2d2-prep-%A-%a.log "$0")
    sbatch --dependency=afterok:"$array" --kill-on-invalid-dep=yes --output=a2d2-prep-%j.log "$0"
elif [ -n "${{SLURM_ARRAY_TASK_ID:-}}" ]; then
    exec "${{command[@]}}" --part "$SLURM_ARRAY_TASK_ID/{parts}"
else
    exec "${{command[@]}}"
fi
"""


def array_script(
    command: Sequence[str],
    *,
    parts: int,
    cpus: int,
    memory: str,
    time: str,
    partition: str | None = None,
    account: str | None = None,
) -> str:
    """The script for `command`, an `a2d2-prep shard ...` without --part; `time` as SLURM writes it, HH:MM:SS."""
    words = shlex.join([*command, "--workers", str(cpus)])
    chosen = {"partition": partition, "account": account}
    extra = "".join(f"#SBATCH --{name}={value}\n" for name, value in chosen.items() if value)
    return _SCRIPT.format(extra=extra, parts=parts, last=parts - 1, cpus=cpus, memory=memory, time=time, command=words)
