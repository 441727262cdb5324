"""One module for each command group of `dragoman`. Importing them loads no heavy library."""
