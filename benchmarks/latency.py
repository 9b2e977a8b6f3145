"""One multi-task forward against four single-task networks: latency, memory, parameters used, multiply-adds.

`python benchmarks/latency.py --size 256 512` prints Markdown. All networks take the same image in turn, in one
process, so that the ratio holds on a machine that others use too; memory is each side's own, in a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch

from models.cost import forward_gmac, parameter_counts
from models.heads import HEADS
from models.multitask import MultiTaskNet, build_multitask
from models.singletask import NAMES, build_singletask

MULTI, SINGLE = "multi-task network", "four single-task networks"
HEADINGS = ("image, px", "network", "parameters used, M", "GMAC", "wall, ms", "CPU time, ms", "memory, MB")


@dataclass
class Measured:
    """A network and the seconds of its forwards, a value per round."""

    network: MultiTaskNet
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def forward(self, image: torch.Tensor) -> None:
        """One forward of all its heads."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.network(image, list(self.network.heads))
        if image.is_cuda:
            torch.cuda.synchronize()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def networks_of(side: str, size_px: int, device: torch.device) -> dict[str, MultiTaskNet]:
    """The networks that a car would load: one for four tasks, or four."""
    if side == MULTI:
        found = {MULTI: build_multitask(size=size_px)}
    else:
        found = {NAMES[task]: build_singletask(task, size=size_px) for task in HEADS}
    return {name: net.eval().to(device).to(memory_format=torch.channels_last) for name, net in found.items()}


def image_of(size_px: int, device: torch.device) -> torch.Tensor:
    return torch.rand(1, 3, size_px, size_px, device=device).to(memory_format=torch.channels_last)


def measure(size_px: int, rounds: int, device: torch.device) -> None:
    """Print the rows of one image size, and the ratio of the two sides."""
    image = image_of(size_px, device)
    found = {
        name: Measured(net) for side in (MULTI, SINGLE) for name, net in networks_of(side, size_px, device).items()
    }
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for measured in found.values():
                measured.forward(image)
    for measured in found.values():  # the first round warmed up
        del measured.wall[0], measured.cpu[0]
    costs = {name: cost_of(measured.network, size_px) for name, measured in found.items()}
    one, singles = found[MULTI], [found[name] for name in NAMES.values()]
    wall, cpu = ([sum(values) for values in zip(*rows, strict=True)]
                 for rows in ([net.wall for net in singles], [net.cpu for net in singles]))  # fmt: skip
    memory = {side: memory_of(side, size_px, device) for side in (MULTI, SINGLE)}
    row(size_px, MULTI, costs[MULTI], one.wall, one.cpu, memory[MULTI])
    for name, measured in list(found.items())[1:]:
        row(size_px, name, costs[name], measured.wall, measured.cpu, "")
    total = tuple(sum(costs[name][place] for name in NAMES.values()) for place in range(2))
    row(size_px, SINGLE, total, wall, cpu, memory[SINGLE])
    ratios = {"wall": [a / b for a, b in zip(wall, one.wall, strict=True)],
              "CPU": [a / b for a, b in zip(cpu, one.cpu, strict=True)]}  # fmt: skip
    line = ", ".join(f"{median(found):.2f} in {what} time ({min(found):.2f} to {max(found):.2f})"
                     for what, found in ratios.items())  # fmt: skip
    print(f"| {size_px} | four / one: {line} | {total[0] / costs[MULTI][0]:.2f} | {total[1] / costs[MULTI][1]:.2f} "
          f"| | | {float(memory[SINGLE]) / float(memory[MULTI]):.2f} |", flush=True)  # fmt: skip


def cost_of(network: MultiTaskNet, size_px: int) -> tuple[float, float]:
    """Millions of parameters that the forward uses, GMAC."""
    return parameter_counts(network, size_px).used / 1e6, sum(forward_gmac(network, size_px).values())


def row(size_px: int, name: str, cost: tuple[float, ...], wall: list[float], cpu: list[float], memory_mb: str) -> None:
    times = f"{1e3 * median(wall):.0f} | {1e3 * median(cpu):.0f}"
    print(f"| {size_px} | {name} | {cost[0]:.1f} | {cost[1]:.1f} | {times} | {memory_mb} |", flush=True)


def memory_of(side: str, size_px: int, device: torch.device) -> str:
    """MB that the side's networks and their forwards add to a process, at the most."""
    command = [sys.executable, __file__, "--memory", side, "--size", str(size_px), "--device", device.type]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def print_memory(side: str, size_px: int, device: torch.device) -> None:
    """The peak of a process that loads the side's networks and runs each once."""
    before = resident_mb("VmRSS")
    networks = networks_of(side, size_px, device)
    with torch.inference_mode():
        for net in networks.values():
            net(image_of(size_px, device), list(net.heads))
    if device.type == "cuda":
        print(f"{torch.cuda.max_memory_allocated() / 2**20:.0f}")
    else:
        print(f"{resident_mb('VmHWM') - before:.0f}")


def resident_mb(what: str) -> float:
    """Memory of this process on Linux: VmRSS now, VmHWM at the most; getrusage would start from the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[256, 512], help="px [256 512]")
    parser.add_argument("--rounds", type=int, default=7, help="forwards of each network that count [7]")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU [1]")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--memory", choices=(MULTI, SINGLE), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    if options.memory:
        print_memory(options.memory, options.size[0], device)
        return
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads, fp32, one image, "
          f"medians of {options.rounds} rounds\n")  # fmt: skip
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    for size_px in options.size:
        measure(size_px, options.rounds, device)


if __name__ == "__main__":
    main()
