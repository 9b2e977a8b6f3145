"""The drawn world's geometry: what a ray meets, where the road bends, who is seen."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from shards.geometry import FRONT_CENTER, project
from synth import cast, lidar
from synth.defects import Defect, place_defects, scene_has_lidar
from synth.looks import LOOKS, paint
from synth.rays import FIRST_SOLID, FIRST_SURFACE, SKY, Rays, View, camera_rays, image_rays, trace
from synth.road import CAMERA_HEIGHT_M, SURFACES, Road, curvature_of_wheel
from synth.solids import Solid, entry_depth
from synth.world import DrawnFrame, plan

WOODS = ((0.0, 1.0, 0.0),)


def road(curvature: float = 0.0) -> Road:
    return Road(curvature, lane_m=3.5, sidewalk_m=2.0)


def box(
    centre: tuple[float, float, float], size: tuple[float, float, float], heading: float = 0.0, ball: bool = False
) -> Solid:
    return Solid("car", "Car 1", centre, size, heading, (0.5, 0.5, 0.5), ball, "Car")


def one_ray(right: float, down: float) -> tuple[np.ndarray, np.ndarray]:
    return np.array([right]), np.array([down])


@pytest.fixture(scope="module")
def frames() -> list[DrawnFrame]:
    return [frame for scene in plan(3, 12, seed=5) for frame in scene]


@pytest.mark.parametrize("curvature", [0.0, 1e-5, 1 / 60, -1 / 60])
@pytest.mark.parametrize("along", [3.0, 40.0, 50.0, 80.0])
@pytest.mark.parametrize("across", [-8.0, 0.0, 5.0])
def test_place_and_locate_are_inverse(curvature: float, along: float, across: float) -> None:
    x, y, _ = road(curvature).place(along, across)
    found = road(curvature).locate(np.array([x]), np.array([y]))
    np.testing.assert_allclose(np.ravel(found), [along, across], atol=1e-5)


@pytest.mark.parametrize(("angle_deg", "side"), [(-90.0, 1), (-10.0, 1), (10.0, -1), (90.0, -1)])
def test_the_road_bends_where_the_wheel_points(angle_deg: float, side: int) -> None:
    _, y, heading = road(curvature_of_wheel(angle_deg)).place(40.0, 0.0)
    assert np.sign(y) == np.sign(heading) == side  # left of the wheel is negative, left in space positive
    assert abs(y) == pytest.approx(abs(angle_deg) / 90 / 60 * 40**2 / 2, rel=0.04)


def test_surfaces_lie_in_bands_beside_the_middle_line() -> None:
    across = np.array([1.75, 0.0, -1.75, -2.0, -2.2, -3.0, -9.0, 5.25])
    surface = road().surface(np.full(8, 10.0), across)
    names = [SURFACES[index] for index in surface]
    street = "RD normal street"
    assert names == [
        "Dashed line",
        street,
        "Solid line",
        street,
        "Curbstone",
        "Sidewalk",
        "Nature object",
        "Solid line",
    ]
    assert SURFACES[int(road().surface(np.array([14.0]), np.array([1.75]))[0])] == street  # between two dashes


@pytest.mark.parametrize(
    ("solid", "ray", "depth"),
    [
        pytest.param(box((10, 0, 0), (4, 2, 2)), (0.0, 0.0), 8.0, id="the face ahead"),
        pytest.param(box((10, 0, 0), (4, 2, 2), math.pi / 2), (0.0, 0.0), 9.0, id="turned a quarter"),
        pytest.param(box((10, 0, 0), (4, 2, 2)), (0.13, 0.0), math.inf, id="past its right"),
        pytest.param(box((10, -2, 0), (4, 2, 2)), (0.11, 0.0), 1 / 0.11, id="its left side"),
        pytest.param(box((10, 0, -2), (4, 2, 2)), (0.0, 0.11), 1 / 0.11, id="its top"),
        pytest.param(box((-10, 0, 0), (4, 2, 2)), (0.0, 0.0), math.inf, id="behind"),
        pytest.param(box((10, 0, 0), (4, 4, 4), ball=True), (0.0, 0.0), 8.0, id="a ball's middle"),
        pytest.param(box((10, 0, 0), (4, 4, 4), ball=True), (0.2, 0.15), math.inf, id="a ball's empty corner"),
        pytest.param(box((-10, 0, 0), (4, 4, 4), ball=True), (0.0, 0.0), math.inf, id="a ball behind"),
    ],
)
def test_entry_depth(solid: Solid, ray: tuple[float, float], depth: float) -> None:
    assert entry_depth(solid, *one_ray(*ray))[0] == pytest.approx(depth)


def test_depth_of_the_ground_follows_from_the_cameras_height() -> None:
    down = np.array([0.3, 0.1, 0.02])
    depth, codes = trace(Rays(np.zeros(3), down), View(road(), (), WOODS))
    np.testing.assert_allclose(depth, CAMERA_HEIGHT_M / down)
    assert (codes >= FIRST_SURFACE).all()
    assert (codes < FIRST_SOLID).all()


def test_the_nearest_thing_is_met_and_the_sky_has_no_depth() -> None:
    far, near = box((30, 0, 0), (2, 6, 6)), box((10, 0, 0), (2, 1, 1))
    right, down = np.array([0.0, 0.08, 0.0]), np.array([0.0, 0.0, -0.3])
    depth, codes = trace(Rays(right, down), View(road(), (far, near), WOODS))
    assert codes.tolist() == [FIRST_SOLID + 1, FIRST_SOLID, SKY]
    assert depth.tolist() == [9.0, 29.0, math.inf]


@pytest.mark.parametrize(
    "centre",
    [
        pytest.param((9.0, 0.5, -0.95), id="ahead"),
        pytest.param((12.0, -5.7, -0.95), id="right edge"),
        pytest.param((12.0, 5.3, -0.95), id="left edge"),
        pytest.param((20.0, -9.0, 6.2), id="upper right corner"),
        pytest.param((9.0, 3.5, -0.95), id="lower left"),
    ],
)
def test_pixels_of_a_box_reach_the_edges_of_its_2d_box(centre: tuple[float, float, float]) -> None:
    solid = box(centre, (4.3, 1.8, 1.5), heading=0.4)
    rays = camera_rays()
    _, codes = trace(rays, View(road(), (solid,), WOODS))
    drawn = codes == FIRST_SOLID
    seen = np.stack([np.ones(drawn.sum()), -rays.right[drawn], -rays.down[drawn]], axis=1).astype(np.float64)
    pixels = project(seen, FRONT_CENTER.undistorted)
    corners = project(solid.corners, FRONT_CENTER.undistorted)
    image = np.array([FRONT_CENTER.width_px, FRONT_CENTER.height_px]) - 1
    checked = 0
    for axis, outermost in itertools.product((0, 1), (np.argmin, np.argmax)):
        corner = corners[outermost(corners[:, axis])]
        if ((corner >= 0) & (corner <= image)).all():  # a side of the 2D box that the image does not cut
            pixel = pixels[outermost(pixels[:, axis])]
            assert pixel[axis] == pytest.approx(corner[axis], abs=1.0)
            checked += 1
    assert checked >= 2


@pytest.mark.parametrize("look", sorted({*LOOKS, "plain", "hedge"}))
def test_every_look_paints_every_face(look: str) -> None:
    solid = Solid(look, "Car 1", (10.0, 0.0, 0.0), (4.0, 2.0, 1.6), 0.3, (0.5, 0.4, 0.3))
    points = np.random.default_rng(0).uniform(-1, 1, (200, 3)) * solid.size / 2
    points[np.arange(200), np.arange(200) % 3] = np.array(solid.size)[np.arange(200) % 3] / 2
    x, y, z = points.T
    cos, sin = math.cos(0.3), math.sin(0.3)
    colours = paint(solid, (cos * x - sin * y + 10, sin * x + cos * y, z), (0.0, 0.0, 1.0))
    assert colours.shape == (200, 3)
    assert colours.min() > 0
    assert colours.max() < 1.4


def test_frames_show_one_to_five_objects_that_are_not_hidden(frames: list[DrawnFrame]) -> None:
    rays = camera_rays()
    fine = image_rays(rays.right[::4, ::4], rays.down[::4, ::4])
    for frame in frames:
        view = cast.draw_view(frame, frame.rng)
        shown = [solid for solid in view.solids if solid.box_class]
        assert len(shown) in ([0] if frame.defect is Defect.NO_BOXES else range(1, cast.MOST_ACTORS + 1))
        _, codes = trace(fine, view)
        for number, solid in enumerate(shown):
            alone = np.isfinite(entry_depth(solid, fine.right, fine.down)).sum()
            assert (codes == FIRST_SOLID + number).sum() >= 0.3 * alone, (frame, solid)
            assert solid.corners[:, 0].min() > 0.5


def test_touching_instances_of_a_class_have_different_colours(frames: list[DrawnFrame]) -> None:
    for frame in frames:
        shown = [solid for solid in cast.draw_view(frame, frame.rng).solids if solid.box_class]
        pairs = [(one, other) for i, one in enumerate(shown) for other in shown[:i] if cast._touch(one, other)]
        assert all(one.entry != other.entry for one, other in pairs)


def test_both_parts_of_a_scene_steer_both_ways() -> None:
    for scene in plan(3, 40, seed=0):
        angles = [float(frame.scene.steering.angle_deg(np.array(frame.timestamp_us))) for frame in scene]
        for part in (angles[:32], angles[32:]):
            assert min(part) < -15
            assert max(part) > 15
        assert 50 < max(np.abs(angles)) < 95


def test_scenes_have_dates_and_frames_ids_of_their_own() -> None:
    planned = plan(40, 3, seed=0)
    assert len({scene[0].scene.name[:8] for scene in planned}) == 40
    ids = [int(frame.frame_id) for frame in planned[0]]
    assert min(np.diff(ids)) > 1
    assert planned[0][0].rng.random() != planned[0][1].rng.random()


@pytest.mark.parametrize(
    ("scenes", "frames", "defects"), [(1, 1, 1), (1, 3, 3), (2, 3, 5), (3, 6, 10), (3, 40, 10), (18, 700, 10)]
)
def test_as_many_defects_as_there_is_room_for(scenes: int, frames: int, defects: int) -> None:
    placed = place_defects(scenes, frames)
    assert len(placed) == len(set(placed.values())) == defects
    assert all(scene < scenes and frame < frames for scene, frame in placed)
    assert placed[0, 0] is Defect.NPZ_WITHOUT_PIXELS  # the first frame of a scene that has LiDAR
    assert scene_has_lidar(0, scenes)
    assert scene_has_lidar(scenes - 1, scenes) is (scenes == 1)


def test_lidar_scans_in_layers_and_leaves_out_what_is_far() -> None:
    wall = box((140.0, 0.0, 0.0), (2.0, 400.0, 60.0))
    arrays = lidar.scan(View(road(), (wall,), WOODS), timestamp_us=0)
    assert arrays["distance"].max() <= lidar.RANGE_M
    np.testing.assert_allclose(arrays["points"][:, 2], -CAMERA_HEIGHT_M)  # the wall is too far: ground alone
    centre = arrays["points"][arrays["lidar_id"] == 3]
    layers = np.degrees(np.arctan2(centre[:, 2], np.hypot(centre[:, 0], centre[:, 1])))
    assert len(np.unique(np.round(layers, 0))) <= 16
