"""gunicorn's side of a node: its worker class, and how it reloads."""

THREADS = 4  # of a web process: gunicorn.conf.py says why
