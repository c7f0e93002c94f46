"""What people see: tables, the error panel, progress; the only place that imports rich."""
