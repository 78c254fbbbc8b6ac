"""The exporter: checkpoint files -> graph -> artifact folder. Needs the extra [export].

The runtime never imports this package.
"""
