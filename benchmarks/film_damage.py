"""Damaged films: is every frame that is read the frame that it says, and is every lost one said?

Cuts, flipped and zeroed bytes and missing pieces, at random places of small films in five containers.

    python -m benchmarks.film_damage --copies 500
"""

from __future__ import annotations

import random
import sys
import tempfile
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path

from tests.damaged_films import damage, judge, packets_by_number
from tests.numbered_films import FILMS, shown_number, write_film
from train.deploy.film import read_film
from train.deploy.film_decode import FilmFrame

FRAMES = 40


def main() -> int:
    """Print a table; 1 where a frame is another one than it says, or a loss is not said."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copies", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="Folder for the copies that are judged wrong.")
    options = parser.parse_args()
    found: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        films = {name: write_film(Path(folder) / f"{name.replace(' ', '_')}{film.suffix}", film, FRAMES)
                 for name, film in FILMS.items()}  # fmt: skip
        for name, path in films.items():
            numbers = [read.number for read in read_film(path) if isinstance(read, FilmFrame)
                       and shown_number(read.image) == read.number]  # fmt: skip
            assert numbers == list(range(FRAMES)), f"{name} must be right before it is damaged, got {numbers}"
        intact = {name: packets_by_number(path) for name, path in films.items()}
        for number in range(options.copies):
            name = list(FILMS)[number % len(FILMS)]
            way, data = damage(films[name].read_bytes(), random.Random(options.seed * 10**6 + number))
            copy = Path(folder) / f"copy{films[name].suffix}"
            copy.write_bytes(data)
            verdict = judge(copy, intact[name])
            found.update({(name, kind): count for kind, count in verdict.counts.items()} | {(name, "copies"): 1})
            if verdict.wrong:
                print(f"{name}, copy {number}, {way}: {verdict.wrong}")
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{number}{films[name].suffix}").write_bytes(data)
    kinds = ("copies", "right", "damaged picture", "lost", "another frame", "silent")
    print(f"{'film':<12}" + "".join(f"{kind:>16}" for kind in kinds))
    for name in FILMS:
        print(f"{name:<12}" + "".join(f"{found[name, kind]:>16}" for kind in kinds))
    return int(any(found[name, kind] for name in FILMS for kind in ("another frame", "silent")))


if __name__ == "__main__":
    sys.exit(main())
