"""The trainer's commands: options, lines for people, exit codes."""
