"""A small synthetic A2D2 for the demo and the tests: the files of the real one, a drawn world, labels that agree.

In come numbers of scenes and frames and a seed; out go tars of the real form. Files in reading order: world (scenes,
frames, times), road and solids (geometry), cast and scenery (objects and their places), rays (one ray tracer for all),
camera and looks, lidar, boxes, bus and calibration (contents of the files), defects (errors of the real data), frame
(the files of one frame), dataset (the tars).
"""
