"""Made, fetched and loaded data, and the ways to split it."""

from .arm import inverse_dynamics, make_arm
from .digits import make_multi_digits
from .makers import MAKERS, make_linnerud
from .sarcos import fetch_sarcos
from .split import blocked_split, fold_rows, split_rows
from .table import load_table, read_table, write_table
from .text import TEXT_TASKS, load_text
from .toy import TOY_STARTS, toy_losses, toy_minimum

__all__ = [
    "MAKERS",
    "TEXT_TASKS",
    "TOY_STARTS",
    "blocked_split",
    "fetch_sarcos",
    "fold_rows",
    "inverse_dynamics",
    "load_table",
    "load_text",
    "make_arm",
    "make_linnerud",
    "make_multi_digits",
    "read_table",
    "split_rows",
    "toy_losses",
    "toy_minimum",
    "write_table",
]
