"""The objects of a frame: traffic and pedestrians with 3D boxes; houses, trees and poles without."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from shards.classes import CLASS_LIST, class_of_entry
from shards.geometry import FRONT_CENTER, project
from synth.defects import Defect
from synth.rays import FIRST_SOLID, Rays, View, coarse_rays, trace, woods_ridge
from synth.road import CAMERA_HEIGHT_M, KERB_M, Road
from synth.scenery import draw_scenery
from synth.solids import Solid, entry_depth
from synth.world import RGB, DrawnFrame

MOST_ACTORS = 5
NEAREST_M, FARTHEST_M = 6.0, 45.0
LEAST_SEEN = 0.35  # of what an actor would cover with nothing before it
LEAST_INSIDE = 0.7  # of its 2D box, inside the image
TRIES = 12
OUTSIDE_XY_M = {Defect.PARTLY_OUTSIDE: (9.5, -5.4), Defect.WHOLLY_OUTSIDE: (6.5, 9.0)}  # where the car is put


@dataclass(frozen=True)
class Kind:
    """A class of A2D2's boxes, the segmentation class it is drawn in, and its size."""

    look: str
    segmentation: str
    size_m: tuple[float, float, float]
    share: float  # of all actors
    nearest_m: float  # larger things start farther away: they would hide the road


KINDS = {
    "Car": Kind("car", "Car", (4.3, 1.85, 1.5), 0.38, 9.0),
    "VanSUV": Kind("van", "Car", (4.9, 2.0, 2.0), 0.12, 10.0),
    "Truck": Kind("truck", "Truck", (7.5, 2.5, 3.3), 0.12, 15.0),
    "Bus": Kind("bus", "Truck", (10.0, 2.5, 3.0), 0.08, 17.0),
    "Pedestrian": Kind("pedestrian", "Pedestrian", (0.6, 0.65, 1.75), 0.2, 7.0),
    "Cyclist": Kind("cyclist", "Bicycle", (1.8, 0.65, 1.75), 0.1, 8.0),
}
VEHICLES = ("Car", "VanSUV", "Truck", "Bus")
COLOURS: tuple[RGB, ...] = (
    (0.85, 0.10, 0.10), (0.10, 0.25, 0.80), (0.95, 0.80, 0.10), (0.95, 0.95, 0.95), (0.10, 0.60, 0.75),
    (0.90, 0.45, 0.10), (0.55, 0.15, 0.55),
)  # fmt: skip


@dataclass(frozen=True)
class Actor:
    """An annotated thing and its place on the road, by which two of them are kept apart."""

    solid: Solid
    along: float
    across: float

    def meets(self, other: Actor) -> bool:
        """True where the two would stand in each other's way."""
        length = (self.solid.size[0] + other.solid.size[0]) / 2 + 1.0
        width = (self.solid.size[1] + other.solid.size[1]) / 2 + 0.4
        return abs(self.along - other.along) < length and abs(self.across - other.across) < width


def draw_view(frame: DrawnFrame, rng: np.random.Generator) -> View:
    """Everything that the frame's rays can meet."""
    road = frame.road
    ridge = woods_ridge(rng)
    actors = _forced(frame, road, rng)
    if frame.defect is not Defect.NO_BOXES:
        actors += _draw_actors(road, rng, actors)
    scenery = draw_scenery(frame, road, rng)
    actors = _seen(View(road, (), ridge), actors, scenery)
    if not actors and frame.defect is not Defect.NO_BOXES:
        actors = [_actor("Car", road, 12.0, 0.0, rng)]  # nothing can stand before it
    solids = [actor.solid for actor in actors]
    return View(road, (*_number_instances(solids), *scenery), ridge)


def _draw_actors(road: Road, rng: np.random.Generator, placed: list[Actor]) -> list[Actor]:
    """One vehicle first, then whoever finds room, five at most."""
    actors: list[Actor] = []
    names, shares = list(KINDS), [kind.share for kind in KINDS.values()]
    for number in range(int(rng.integers(1, MOST_ACTORS + 1 - len(placed)))):
        for _ in range(TRIES):
            name = str(rng.choice(names, p=shares)) if number else str(rng.choice(VEHICLES, p=[0.6, 0.2, 0.1, 0.1]))
            actor = _place(name, road, rng)
            if _inside(actor.solid) and not any(actor.meets(other) for other in [*placed, *actors]):
                actors.append(actor)
                break
    return actors


def _place(name: str, road: Road, rng: np.random.Generator) -> Actor:
    """A random place where the kind belongs, nearer ones more often."""
    nearest = max(NEAREST_M, KINDS[name].nearest_m)
    along = nearest + (FARTHEST_M - nearest) * float(rng.random()) ** 1.7
    if name in VEHICLES:
        oncoming = bool(rng.random() < 0.5)
        across = (road.lane_m if oncoming else 0.0) + float(rng.uniform(-0.3, 0.3))
        return _actor(name, road, along, across, rng, turned=math.pi if oncoming else 0.0)
    if name == "Cyclist":
        return _actor(name, road, along, -road.lane_m / 2 + 0.55, rng)
    walk = road.edge_m + KERB_M + road.sidewalk_m * float(rng.uniform(0.3, 0.7))
    across = road.across(walk if rng.random() < 0.4 else -walk)
    return _actor(name, road, along, across, rng, turned=float(rng.choice([0.0, math.pi])))


def _actor(name: str, road: Road, along: float, across: float, rng: np.random.Generator, turned: float = 0.0) -> Actor:
    kind = KINDS[name]
    length, width, height = (float(side * rng.uniform(0.94, 1.06)) for side in kind.size_m)
    x, y, heading = road.place(along, across)
    solid = Solid(
        look=kind.look,
        entry=f"{kind.segmentation} 1",
        centre=(x, y, height / 2 - CAMERA_HEIGHT_M),
        size=(length, width, height),
        heading=math.remainder(heading + turned, 2 * math.pi),
        colour=COLOURS[int(rng.integers(len(COLOURS)))],
        box_class=name,
    )
    return Actor(solid, along, across)


def _forced(frame: DrawnFrame, road: Road, rng: np.random.Generator) -> list[Actor]:
    """The car of a frame whose defect is a box outside the image."""
    if frame.defect not in OUTSIDE_XY_M:
        return []
    along, across = road.locate(*(np.array(value) for value in OUTSIDE_XY_M[frame.defect]))
    return [_actor("Car", road, float(along), float(across), rng)]


def _inside(solid: Solid) -> bool:
    """True where the thing is wholly before the camera, and most of its 2D box inside the image."""
    corners = solid.corners
    if corners[:, 0].min() < 1.0:
        return False
    pixels = project(corners, FRONT_CENTER.undistorted)
    image = np.array([FRONT_CENTER.width_px, FRONT_CENTER.height_px]) - 1
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    shown = np.clip(high, 0, image) - np.clip(low, 0, image)
    return bool(np.prod(shown) >= LEAST_INSIDE * np.prod(high - low))


def _seen(ground: View, actors: list[Actor], scenery: tuple[Solid, ...]) -> list[Actor]:
    """The actors without those that are mostly hidden, the most hidden taken away first."""
    rays = coarse_rays()
    while actors:
        solids = tuple(actor.solid for actor in actors)
        _, codes = trace(rays, replace(ground, solids=solids + scenery))
        shown = np.bincount(codes.ravel(), minlength=FIRST_SOLID + len(solids))[FIRST_SOLID:]
        shares = [
            seen / alone if (alone := _rays_that_meet(rays, solid)) else 1.0
            for seen, solid in zip(shown, solids, strict=False)
        ]
        if min(shares) >= LEAST_SEEN:
            break
        del actors[shares.index(min(shares))]
    return actors


def _rays_that_meet(rays: Rays, solid: Solid) -> int:
    """The number of rays that would meet the thing with nothing before it; 0 where it is outside the image."""
    window = rays.window(solid)
    return int(np.isfinite(entry_depth(solid, rays.right[window], rays.down[window])).sum())


def _number_instances(solids: list[Solid]) -> list[Solid]:
    """Instances of a class whose 2D boxes touch get different colours of it, as A2D2 does: Car 1, Car 2, ..."""
    numbered: list[Solid] = []
    for solid in solids:
        name = class_of_entry(solid.entry)
        entries = [entry for entry in CLASS_LIST.values() if class_of_entry(entry) == name]
        taken = {other.entry for other in numbered if _touch(solid, other)}
        entry = next((entry for entry in entries if entry not in taken), entries[-1])
        numbered.append(replace(solid, entry=entry))
    return numbered


def _touch(one: Solid, other: Solid) -> bool:
    """True where their 2D boxes are not two pixels apart."""
    first, second = (project(solid.corners, FRONT_CENTER.undistorted) for solid in (one, other))
    gap = np.maximum(first.min(axis=0) - second.max(axis=0), second.min(axis=0) - first.max(axis=0))
    return bool((gap <= 2).all())
