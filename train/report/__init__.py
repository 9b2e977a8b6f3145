"""Tables, figures, pictures and model cards of runs.

In come run folders: the config, the lines of metrics.jsonl, eval.json and the arrays of sample pictures; no network is
loaded. Out come the documents of one run (run_report.py), the HTML page that compares several (report.py), lines for
the terminal (text.py) and TensorBoard events (tensorboard.py).
"""

import logging

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of its cache where a home folder is read-only
