"""The export journey: checkpoint files -> graph -> artefact folder. Needs the extra [export].

The runtime never imports this package.
"""
