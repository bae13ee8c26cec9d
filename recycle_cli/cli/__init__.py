"""The command line: parse, call one function, show. Nothing heavy is imported before a command needs it."""
