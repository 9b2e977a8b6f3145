"""A small synthetic A2D2: the real format, a drawn world whose four labels agree with each other."""
