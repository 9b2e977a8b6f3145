"""The bus file of a scene: a record per frame, 26 signals, 21 values each: 11 up to the image and 10 after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synth.defects import ERROR_CODE_DEG, Defect
from synth.road import curvature_of_wheel
from synth.world import DrawnFrame, Steering

VALUES_BEFORE, VALUES_AFTER = 11, 10
PERIOD_US = 20_000
SHIFT_US = 700  # every signal has its own clock: each is read this much before the one above it
ANGLE_STEP_DEG = 0.15
SHIFT_MM_PER_DEG = 0.14  # travel of the steering link
PULSE_M = 0.02

Times = NDArray[np.int64]  # (N,), us
Values = NDArray[np.float64]  # (N,)
Signal = Callable[["Drive", Times], Values]


@dataclass(frozen=True)
class Drive:
    """The motion of the car at times (N,) int64 in us."""

    steering: Steering

    def seconds(self, times_us: Times) -> Values:
        """Times since the scene's zero."""
        return np.asarray((times_us - self.steering.zero_us) * 1e-6)

    def angle_deg(self, times_us: Times) -> Values:
        """The steering wheel's, left negative."""
        return self.steering.angle_deg(times_us)

    def speed_mps(self, times_us: Times) -> Values:
        """Gently up and down about 40 km/h."""
        return np.asarray(11.0 + 1.8 * np.sin(self.seconds(times_us) / 4))

    def acceleration(self, times_us: Times) -> Values:
        """Along the car, m/s^2: the derivative of its speed."""
        return np.asarray(1.8 / 4 * np.cos(self.seconds(times_us) / 4))

    def yaw_rate(self, times_us: Times) -> Values:
        """rad/s, left positive, from the curvature of the road that is drawn."""
        return self.speed_mps(times_us) * curvature_of_wheel(1.0) * self.angle_deg(times_us)

    def pulses(self, times_us: Times) -> Values:
        """A wheel's counter, which runs over at 1016."""
        return np.floor(self.seconds(times_us) * 11.0 / PULSE_M) % 1016


def _constant(value: float) -> Signal:
    return lambda _, times_us: np.full(times_us.shape, value)


def _magnitude_deg(drive: Drive, times_us: Times) -> Values:
    return np.round(np.abs(drive.angle_deg(times_us)) / ANGLE_STEP_DEG) * ANGLE_STEP_DEG


def _sign(drive: Drive, times_us: Times) -> Values:
    """0 = left, 1 = right."""
    return (drive.angle_deg(times_us) > 0).astype(np.float64)


DEGREES, RATE, PER_CENT = "Unit_DegreOfArc", "Unit_DegreOfArcPerSecon", "Unit_PerCent"
METRES = "Unit_MeterPerSeconSquar"
SIGNALS: dict[str, tuple[str | None, Signal]] = {
    "acceleration_x": (METRES, Drive.acceleration),
    "acceleration_y": (METRES, lambda drive, t: drive.speed_mps(t) * drive.yaw_rate(t)),
    "acceleration_z": (METRES, _constant(9.81)),
    "accelerator_pedal": (PER_CENT, lambda drive, t: 18 + 30 * np.maximum(drive.acceleration(t), 0)),
    "accelerator_pedal_gradient_sign": (None, lambda drive, t: np.heaviside(drive.acceleration(t), 0.0)),
    "angular_velocity_omega_x": (RATE, _constant(0.0)),
    "angular_velocity_omega_y": (RATE, _constant(0.0)),
    "angular_velocity_omega_z": (RATE, lambda drive, t: np.degrees(drive.yaw_rate(t))),
    "brake_pressure": ("Unit_Bar", lambda drive, t: 12 * np.maximum(-drive.acceleration(t), 0)),
    "distance_pulse_front_left": (None, Drive.pulses),
    "distance_pulse_front_right": (None, Drive.pulses),
    "distance_pulse_rear_left": (None, Drive.pulses),
    "distance_pulse_rear_right": (None, Drive.pulses),
    "driving_direction": (None, _constant(0.0)),
    "gear": (None, _constant(4.0)),
    "latitude_degree": (DEGREES, lambda drive, t: 48.7665 + 8e-5 * drive.seconds(t)),
    "latitude_direction": (None, _constant(0.0)),
    "longitude_degree": (DEGREES, lambda drive, t: 11.4257 + 5e-5 * drive.seconds(t)),
    "longitude_direction": (None, _constant(0.0)),
    "pitch_angle": (DEGREES, lambda drive, t: -0.3 * drive.acceleration(t)),
    "roll_angle": (DEGREES, lambda drive, t: -0.2 * drive.speed_mps(t) * drive.yaw_rate(t)),
    # the shift of the steering link: the publisher's bad name, and a trap for whoever takes it for the angle
    "steering_angle": (DEGREES, lambda drive, t: SHIFT_MM_PER_DEG * np.abs(drive.angle_deg(t))),
    "steering_angle_calculated": (DEGREES, _magnitude_deg),
    "steering_angle_calculated_sign": (None, _sign),
    "steering_angle_sign": (None, _sign),
    "vehicle_speed": ("Unit_KiloMeterPerHour", lambda drive, t: 3.6 * drive.speed_mps(t)),
}


def bus_signals(frames: Sequence[DrawnFrame]) -> list[dict[str, Any]]:
    """The records of a scene's frames, in their order."""
    return [_record(frame) for frame in frames if frame.defect is not Defect.NO_BUS_RECORD]


def _record(frame: DrawnFrame) -> dict[str, Any]:
    drive = Drive(frame.scene.steering)
    ticks_us = np.arange(1 - VALUES_BEFORE, VALUES_AFTER + 1) * PERIOD_US
    flexray: dict[str, dict[str, Any]] = {}
    for number, (name, (unit, values)) in enumerate(SIGNALS.items()):
        times_us = frame.timestamp_us + ticks_us - SHIFT_US * number
        rounded = np.round(values(drive, times_us), 6)
        flexray[name] = {"timestamps": times_us.tolist(), "unit": unit, "values": rounded.tolist()}
    if frame.defect is Defect.MISSING_SIGNAL:
        del flexray["steering_angle_calculated"]
    if frame.defect is Defect.ERROR_CODE:
        flexray["steering_angle_calculated"]["values"][-VALUES_AFTER // 2] = ERROR_CODE_DEG
    return {
        "frame_name": frame.file_name("camera", "json"),
        "timestamp": frame.timestamp_us,
        "flexray": flexray,
    }
