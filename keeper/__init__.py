"""The operator's program: all live input and output."""

__version__ = "0.1.0"
