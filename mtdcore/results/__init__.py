"""What belongs to a finished recovery: copies, maps, null runs, half sets, uncertainty, errors against a truth."""
