"""The command line: one table of commands, a parser each, the console."""
