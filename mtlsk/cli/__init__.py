"""The command line: ``mtlsk fit | predict | certify``, ``mtlsk study ...`` and ``mtlsk list``.

A command's module imports what is heavy when it runs: ``mtlsk --help`` takes a tenth of a second.
"""

from mtlsk.cli.entry import build_parser, main

__all__ = ["build_parser", "main"]
