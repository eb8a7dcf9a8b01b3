"""The programs that run in the pod's other containers.

Each program is a module that starts with `python -m flytekitplugins.inference.programs.<name>`,
explains itself with `--help` and works from a terminal. Programs import the standard library, each
other and `errors`; anything else is imported inside the function that needs it, because the modules
also travel to images that lack this package.
"""
