"""One file per subcommand: paths and settings in, a frozen result out; the only floor that knows files and maths."""
