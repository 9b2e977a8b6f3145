"""The commands amtl-train, amtl-eval, amtl-report, amtl-predict and amtl-export.

In come options; out go printed lines and exit codes. Only these modules print, and only they join training with
reporting.
"""
