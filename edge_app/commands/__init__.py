"""The commands of edge-app that have subcommands of their own; `cli` puts them together."""
