"""The grammar of the command line, one module a topic; what the commands do lies one folder up."""
