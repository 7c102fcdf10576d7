"""The doctor looks at what a node needs, and says what is wrong and what helps, one line each.

``machine`` asks no server (manage.py check --deploy runs it too), ``servers`` asks the node's own,
and ``network`` asks the upstream, or core network, and the peers.
"""
