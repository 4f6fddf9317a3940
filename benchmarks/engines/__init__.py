"""What the worker is compared with, each a program of its own that reads one topic and prints its rate.

They import nothing of reelflow: the stateful ones run in an environment of their own, because their
versions of shared libraries are not ours.
"""
