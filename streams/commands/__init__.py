"""One module a subcommand; each has an attribute `command`."""
