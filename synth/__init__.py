"""A small synthetic A2D2: the real format, a drawn world whose four labels agree with each other.

In reading order: world (scenes, frames, times), road and solids (the geometry), cast and scenery (who stands
where), rays (one trace for all), camera and looks, lidar, boxes, bus and calibration (the files' contents),
defects (what the real data gets wrong), frame (one frame's files), dataset (the tars).
"""
