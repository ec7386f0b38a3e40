"""Linear heads on whitened points: what they are trained for, how, and the one that places all images."""
