"""The command line: one file a command. Heavy imports stand inside the commands, so that `dynalign --help` is quick."""
