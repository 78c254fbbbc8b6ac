"""The classes of other packages over the models of this one, so that programs need other imports alone."""
