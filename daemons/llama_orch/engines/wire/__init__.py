"""Wire formats: how queen-rbee puts tasks to engines of each kind and reads their answers."""
