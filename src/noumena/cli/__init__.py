"""The command line: one file per verb. Heavy imports happen inside the verb."""
