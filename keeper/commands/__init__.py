"""One module a command group; the command line imports them only when they run."""
